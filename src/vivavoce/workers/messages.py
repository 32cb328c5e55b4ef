"""What the supervisor and its workers send each other, and where they are."""

import os
import socket
import struct
from typing import Any

import msgspec

from vivavoce.api.public import ReadyStatus
from vivavoce.runtime.places import Place

_LENGTH = struct.Struct(">I")


class WorkerOrder(msgspec.Struct, frozen=True):
    """The first thing that a worker reads: how it serves."""

    index: int
    """From 0."""
    count: int
    config: str | None
    """The settings file; None: the default places."""
    flags: dict[str, Any]
    """Settings by "section.key", which take precedence over the file."""
    descriptors: tuple[int, ...]
    """Sockets that have the address."""
    folder: str
    """Where the Unix sockets are."""
    secret: str
    """Signs short-lived keys, which all workers accept."""


class BannerModel(msgspec.Struct, frozen=True):
    """What is printed at start of one configured model."""

    name: str
    is_default: bool
    engines: tuple[tuple[str, str], ...] = ()
    """The name of the engine of each kind, with the reason for the choice."""
    relay_url: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """What a worker answers to its supervisor."""

    ready: ReadyStatus
    address: str
    """Where clients connect: ws://127.0.0.1:8080/v1/realtime."""
    models: tuple[BannerModel, ...]


class WorkerPlace(msgspec.Struct, frozen=True):
    """Which of several processes this one is, and where the other workers of the machine are."""

    index: int
    count: int
    folder: str
    """Where the Unix sockets are; "": there is no supervisor."""
    sockets: tuple[socket.socket, ...] = ()
    """They have the address at which it serves."""
    node: str = ""
    """The tag of its node; "": it is in no cluster."""

    @property
    def place(self) -> Place:
        return Place(self.node, self.index)

    @property
    def name(self) -> str:
        """What stands in the ids that it makes."""
        return self.place.name

    @property
    def client_socket(self) -> str:
        """ "" where there is no supervisor."""
        return client_socket(self.folder, self.index) if self.folder else ""

    @property
    def others(self) -> list[int]:
        """The numbers of the other workers."""
        return [number for number in range(self.count) if number != self.index]


def client_socket(folder: str, index: int) -> str:
    """The Unix socket at which a worker serves requests that other workers forward."""
    return os.path.join(folder, f"worker-{index}.sock")


def control_socket(folder: str, index: int) -> str:
    """The Unix socket at which a worker answers to its supervisor."""
    return os.path.join(folder, f"control-{index}.sock")


def supervisor_socket(folder: str) -> str:
    """The Unix socket at which the supervisor answers for all workers."""
    return os.path.join(folder, "supervisor.sock")


def hub_socket(folder: str) -> str:
    """The Unix socket at which the supervisor offers the processes of engines."""
    return os.path.join(folder, "engines.sock")


def send_order(descriptor: int, order: WorkerOrder) -> None:
    """Write an order into a pipe."""
    body = msgspec.json.encode(order)
    os.write(descriptor, _LENGTH.pack(len(body)) + body)


def read_order(descriptor: int) -> WorkerOrder:
    """Read an order from a pipe. Raises EOFError: the supervisor is gone."""
    (size,) = _LENGTH.unpack(_read(descriptor, _LENGTH.size))
    return msgspec.json.decode(_read(descriptor, size), type=WorkerOrder)


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (piece := os.read(descriptor, size - len(data))):
            raise EOFError("the pipe was closed")
        data += piece
    return data
