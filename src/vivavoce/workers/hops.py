"""The signature under which one node of a cluster passes a request on to another.

The signature shows that the request was passed on already, so that it is not passed on again, and
it contains the address of the client. The key of the client goes with the request as it came, and
is checked anew.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from vivavoce.runtime.cluster import Cluster
from vivavoce.secret import Secret

HOP_HEADER = "X-Vivavoce-Hop"
MAX_AGE_S = 60
"""How long a signature is valid: the clocks of two nodes may differ by that much."""
MAX_HEADER_CHARS = 200


class HopError(Exception):
    """A signature is not valid; the message names the remedy."""


class HopSigner(NamedTuple):
    """secret: [server] secret, which all nodes have."""

    secret: Secret
    wall_clock: Callable[[], float] = time.time

    def sign(self, method: str, path: str, client: str) -> str:
        """The value of HOP_HEADER. path: with the query. client: the address of the client."""
        at = str(int(self.wall_clock()))
        return f"{at} {client or '-'} {self._digest(method, path, at, client or '-')}"

    def check(self, header: str, method: str, path: str) -> str:
        """The address of the client. Raises HopError."""
        parts = header.split(" ")
        if len(header) > MAX_HEADER_CHARS or len(parts) != 3 or not header.isascii():
            raise HopError(f"The header {HOP_HEADER} is not that of a node: leave it out.")
        at, client, digest = parts
        if not hmac.compare_digest(digest, self._digest(method, path, at, client)):
            raise HopError(
                "Another node has passed this request on, and has another [server] secret: set it "
                "to the same text on all nodes."
            )
        if abs(self.wall_clock() - int(at)) > MAX_AGE_S:
            raise HopError(
                f"Another node has passed this request on, and its clock differs by more than "
                f"{MAX_AGE_S} s: synchronise the clocks of all nodes."
            )
        return "" if client == "-" else client

    def _digest(self, *parts: str) -> str:
        text = "\n".join(("cluster", *parts)).encode(errors="surrogatepass")
        return hmac.new(self.secret.reveal().encode(), text, hashlib.sha256).hexdigest()


class Neighbours(msgspec.Struct, frozen=True):
    """The cluster as the forwarder needs it."""

    cluster: Cluster
    signer: HopSigner
