"""The scripted model answers what stands in its script, when it stands there."""

from typing import Literal

import pytest

from tests.engines.timed import timed, until_error
from vivavoce.engines.base import (
    CallDelta,
    CallStarted,
    ChatEnded,
    ChatEvent,
    ChatRequest,
    ChatUsage,
    TextDelta,
)
from vivavoce.engines.scripted.engines import ScriptedLLM, last_user_text
from vivavoce.engines.scripted.scripts import LLMScript, ScriptedAnswer, ScriptedCall
from vivavoce.errors import EngineError
from vivavoce.protocol.items import FunctionCallOutput, InputAudio, InputText, Message, OutputText
from vivavoce.testing.conformance import HELLO, check_answer
from vivavoce.testing.virtual_time import run


def ask(llm: ScriptedLLM, request: ChatRequest = HELLO) -> list[tuple[float, ChatEvent]]:
    return run(timed(llm.generate(request)))


def test_answers_come_in_order_and_repeat() -> None:
    llm = ScriptedLLM(LLMScript(answers=("One.", ScriptedAnswer("Two."))))
    assert [ask(llm) for _ in range(3)] == [
        [(0.0, TextDelta(text)), (0.0, ChatEnded())] for text in ("One.", "Two.", "One.")
    ]


def test_answers_without_repeat_end_with_engine_error() -> None:
    llm = ScriptedLLM(LLMScript(answers=("One.",), repeat=False))
    ask(llm)
    with pytest.raises(EngineError, match=r"\[engines.llm.scripted\] the script is at its end"):
        ask(llm)


def test_words_come_at_tokens_per_second() -> None:
    answer = ScriptedAnswer("So it  is.", first_token_seconds=0.5, tokens_per_second=10)
    assert ask(ScriptedLLM(LLMScript(answers=(answer,)))) == [
        (0.5, TextDelta("So ")),
        (0.6, TextDelta("it  ")),
        (0.7, TextDelta("is.")),
        (0.7, ChatEnded()),
    ]


def test_text_in_one_chunk_comes_at_once() -> None:
    answer = ScriptedAnswer("So it is.", chunk="all", reason="content_filter")
    llm = ScriptedLLM(LLMScript(answers=(answer, ScriptedAnswer("", chunk="all"))))
    assert ask(llm) == [(0.0, TextDelta("So it is.")), (0.0, ChatEnded("content_filter"))]
    assert ask(llm) == [(0.0, ChatEnded())]


def test_calls_follow_the_text() -> None:
    calls = (
        ScriptedCall("weather", {"city": "Reggio Emilia"}),
        ScriptedCall("time", "{broken", call_id="mine"),
        ScriptedCall("stop"),
    )
    usage = ChatUsage(10, 5)
    llm = ScriptedLLM(LLMScript(answers=(ScriptedAnswer("Wait.", calls, usage=usage),)))
    events = [event for _, event in ask(llm)]
    assert events == [
        TextDelta("Wait."),
        CallStarted(0, "call_1", "weather"),
        CallDelta(0, '{"city":"Reggio '),
        CallDelta(0, 'Emilia"}'),
        CallStarted(1, "mine", "time"),
        CallDelta(1, "{broken"),
        CallStarted(2, "call_3", "stop"),
        CallDelta(2, "{}"),
        ChatEnded("stop", usage),
    ]
    again = [event for _, event in ask(llm)]
    assert again[1] == CallStarted(0, "call_4", "weather")


def test_answer_can_fail_or_stall_in_the_middle() -> None:
    failing = ScriptedAnswer("a b c", error="out of breath", fail_after_words=1)
    stalling = ScriptedAnswer("a b c", stall=True, fail_after_words=2)
    llm = ScriptedLLM(LLMScript(answers=(failing, stalling, failing)))
    first = [TextDelta("a ")]
    assert run(until_error(llm.generate(HELLO), 3600)) == (first, "EngineError")
    second = [TextDelta("a "), TextDelta("b ")]
    assert run(until_error(llm.generate(HELLO), 3600)) == (second, "TimeoutError")
    with pytest.raises(EngineError, match="out of breath"):
        ask(llm)


@pytest.mark.parametrize(
    ("limit", "said", "reason"),
    [
        (None, "a b c", "stop"),
        (3, "a b c", "stop"),
        (2, "a b ", "length"),
        (0, "", "length"),
    ],
)
def test_token_limit_counts_words(
    limit: int | None, said: str, reason: Literal["stop", "length"]
) -> None:
    called = ScriptedAnswer("a b c", (ScriptedCall("f"),))
    llm = ScriptedLLM(LLMScript(answers=(called,)))
    request = ChatRequest("", (), max_output_tokens=limit)
    events = check_answer([event for _, event in ask(llm, request)])
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == said
    assert events[-1] == ChatEnded(reason)
    assert any(isinstance(event, CallStarted) for event in events) == (reason == "stop")


def test_answer_can_repeat_the_user() -> None:
    llm = ScriptedLLM(LLMScript(answers=(ScriptedAnswer("You said: ", echo=True, chunk="all"),)))
    assert ask(llm)[0] == (0.0, TextDelta("You said: Hello, what can you do?"))


def test_last_user_text_is_found_in_audio_and_text() -> None:
    user = Message(role="user", content=(InputAudio(transcript="look"), InputText("here")))
    reply = Message(role="assistant", content=(OutputText("Yes."),))
    unheard = Message(role="user", content=(InputAudio(),))
    assert last_user_text((user, reply)) == "look here"
    assert last_user_text((reply, FunctionCallOutput(call_id="c", output="1"))) == ""
    assert last_user_text((user, unheard)) == ""


def test_last_twenty_requests_are_kept() -> None:
    llm = ScriptedLLM(LLMScript())
    requests = [ChatRequest(str(i), ()) for i in range(23)]

    async def main() -> None:
        for request in requests:
            await timed(llm.generate(request))

    run(main())
    assert llm.requests == requests[3:]
