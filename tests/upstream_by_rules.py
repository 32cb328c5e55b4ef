"""An upstream Realtime server that answers by the rules of the built-in language model.

So what clients get of it over a relay is what they get of a cascade with that model. To run it as a
process of its own: python -m tests.upstream_by_rules TRANSCRIPT; it prints its address.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from tests.fake_upstream import Answer, Behaviour, FakeSession, FakeUpstream
from vivavoce.engines.base import CallDelta, CallStarted, ChatRequest, TextDelta
from vivavoce.engines.builtin.llm import BuiltinLLM, BuiltinSettings
from vivavoce.protocol.items import FunctionTool
from vivavoce.protocol.upstream import UpstreamItem
from vivavoce.session.relay.items import read_item

WORD_S = 0.1
"""Between two words, each of 300 ms: three times real time, so that answers can be interrupted."""


class RuledUpstream(FakeUpstream):
    """Every utterance is `transcript`; functions are called where the client declares any."""

    def __init__(self, transcript: str) -> None:
        super().__init__()
        self.transcript = transcript
        self._llm = BuiltinLLM(BuiltinSettings())

    async def behaviour(self, session: FakeSession, settings: Mapping[str, Any]) -> Behaviour:
        given = [msgspec.convert(item, UpstreamItem) for item in session.items]
        read = (read_item(item, "completed") for item in given)
        tools = tuple(msgspec.convert(tool, FunctionTool) for tool in settings.get("tools") or ())
        request = ChatRequest(
            settings.get("instructions") or "", tuple(item for item in read if item), tools
        )
        text, names, arguments = "", [], [""]
        async for event in self._llm.generate(request):
            match event:
                case TextDelta(text=more):
                    text += more
                case CallStarted(name=name):
                    names.append(name)
                case CallDelta(arguments=more):
                    arguments[0] += more
        calls = tuple((name, json.loads(arguments[0])) for name in names)
        return Answer(text, calls=calls, chunks=3, pause_s=WORD_S)


async def main(transcript: str) -> None:
    async with RuledUpstream(transcript).serve() as address:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
