"""Everything that a client may send and should not: made from one seed, the same every time."""

import base64
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec

from tests.protocol.client_samples import BETA_CLIENT_EVENTS, GA_CLIENT_EVENTS

Frame = bytes
"""What goes into one frame: JSON, or what is taken for it."""

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1e308,
    2**63,
    "",
    "x" * 600,
    "\u0000",
    "😀",
    [],
    [[]],
    {},
    {"type": "nothing"},
    [None] * 50,
    "item_1",
    "AAAA",
)
_SOUND = base64.b64encode(b"\x00\x40" * 768 * 6 + bytes(2 * 768 * 20)).decode()
LIVELY: tuple[dict[str, Any], ...] = (
    {"type": "input_audio_buffer.append", "audio": _SOUND},
    {"type": "input_audio_buffer.append", "audio": "AAA="},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "response.create"},
    {"type": "response.create", "response": {"conversation": "none", "input": []}},
    {"type": "response.cancel"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.delete", "item_id": "item_1"},
    {"type": "conversation.item.retrieve", "item_id": "item_1"},
    {
        "type": "conversation.item.truncate",
        "item_id": "item_1",
        "content_index": 0,
        "audio_end_ms": 1,
    },
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "id": "item_1",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hello."}],
        },
    },
    {"type": "session.update", "session": {"type": "realtime", "instructions": "Be short."}},
)
"""Events that are well formed, and do things when they come in any order."""

_SAMPLES = (*GA_CLIENT_EVENTS, *BETA_CLIENT_EVENTS, *LIVELY)


class Noise:
    """A source of bad frames. `random` decides all."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._kinds: tuple[Callable[[], Frame], ...] = (
            self._bytes,
            self._truncated,
            self._mutated,
            self._mutated,
            self._mutated,
            self._out_of_order,
            self._out_of_order,
            self._scrambled,
            self._nested,
            self._odd_json,
        )

    def frame(self) -> Frame:
        return self.random.choice(self._kinds)()

    def _event(self) -> dict[str, Any]:
        """A good event, of any kind."""
        event: dict[str, Any] = msgspec.json.decode(
            msgspec.json.encode(self.random.choice(_SAMPLES))
        )
        return event

    def _bytes(self) -> Frame:
        return self.random.randbytes(self.random.choice((0, 1, 2, 30, 300)))

    def _truncated(self) -> Frame:
        raw = msgspec.json.encode(self._event())
        return raw[: self.random.randrange(len(raw))]

    def _scrambled(self) -> Frame:
        """A few bytes of a good event are others."""
        raw = bytearray(msgspec.json.encode(self._event()))
        for _ in range(self.random.randint(1, 4)):
            raw[self.random.randrange(len(raw))] = self.random.randrange(256)
        return bytes(raw)

    def _mutated(self) -> Frame:
        event = self._event()
        for _ in range(self.random.randint(1, 3)):
            self._mutate(event)
        return msgspec.json.encode(event)

    def _mutate(self, node: Any) -> None:
        """Change, drop or add something, somewhere inside."""
        while isinstance(node, dict | list) and node:
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = self.random.choice(keys)
            if isinstance(node[key], dict | list) and node[key] and self.random.random() < 0.7:
                node = node[key]
                continue
            match self.random.randrange(4):
                case 0:
                    del node[key]
                case 1 if isinstance(node, dict):
                    node["surprise"] = deepcopy(self.random.choice(VALUES))
                case _:
                    node[key] = deepcopy(self.random.choice(VALUES))
            return

    def _out_of_order(self) -> Frame:
        return msgspec.json.encode(self.random.choice(LIVELY))

    def _nested(self) -> Frame:
        depth = self.random.choice((10, 200, 3000))
        return b'{"type":"session.update","session":' + b'{"tools":[' * depth

    def _odd_json(self) -> Frame:
        odd = (b"null", b"[]", b'"x"', b"1", b"{}", b'{"type":null}', b'{"type":"\xff"}', b"NaN")
        return self.random.choice(odd)
