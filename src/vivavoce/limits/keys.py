"""API keys: stored by name as hashes, compared in constant time.

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
    """The key made of these KEY_BYTES random bytes."""
    return Secret(PREFIX + random_bytes.hex())


def hash_of(key: str) -> str:
    """The hash of a key, as the settings hold it. Any text has one, also with surrogates in it."""
    text = Secret(key).reveal()
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


class KeyRing:
    """The API keys of a server, by name."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        """Raises SettingsError for a value that is not a hash."""
        self.replace(hashes)

    def replace(self, hashes: Mapping[str, str]) -> None:
        """Use these keys from now on. Raises SettingsError for a value that is not a hash."""
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
        """The name of a key, None for an unknown one. Always compares every hash."""
        presented = hash_of(key)
        found = None
        for name, known in self._hashes.items():
            if hmac.compare_digest(presented, known):
                found = name
        return found
