"""API keys: by name, known only by their hashes, compared in constant time.

A key is made of 256 random bits, so a plain SHA-256 of it cannot be searched; a password's could.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping

from vivavoce.errors import SettingsError
from vivavoce.secret import Secret

PREFIX = "vv-"
KEY_BYTES = 32
_HASH = re.compile(r"^sha256:[0-9a-f]{64}$")


def key_of(random_bytes: bytes) -> Secret:
    """The key that stands for so many random bytes."""
    return Secret(PREFIX + random_bytes.hex())


def hash_of(key: str) -> str:
    """What the settings keep of a key."""
    text = key.reveal() if isinstance(key, Secret) else key
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class KeyRing:
    """The keys that open the server. Empty: it has none."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        for name, value in hashes.items():
            if not _HASH.match(value):
                raise SettingsError(
                    f"[keys] {name} is not the hash of a key; make one with: vivavoce keys new "
                    f"{name}"
                )
        self._hashes = dict(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def name_of(self, key: str) -> str | None:
        """Whose key it is. Every hash is compared, whichever fits."""
        presented = hash_of(key)
        found = None
        for name, known in self._hashes.items():
            if hmac.compare_digest(presented, known):
                found = name
        return found
