from vivavoce.engines.builtin.conversation import Exchange, read
from vivavoce.protocol.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputImage,
    InputText,
    Message,
    OutputText,
)

ASKED = Message(role="user", content=(InputAudio(transcript="hello"), InputText("there")))
ANSWERED = Message(role="assistant", content=(OutputText("Hi."),))
CALL = FunctionCall(call_id="c", name="f")
OUTPUT = FunctionCallOutput(call_id="c", output="1")


def test_the_last_words_of_the_user_await_an_answer() -> None:
    assert read([ASKED]) == Exchange(said="hello there")
    turns = (("user", "hello there"), ("assistant", "Hi."))
    assert read([ASKED, ANSWERED]) == Exchange(turns=turns)
    assert read([ASKED, ANSWERED, ASKED]) == Exchange(turns=turns, said="hello there")


def test_speech_without_a_transcript_is_speech_without_words() -> None:
    assert read([Message(role="user", content=(InputAudio(),))]) == Exchange(said="")


def test_outputs_are_fresh_until_they_are_told() -> None:
    done = Exchange(said="hello there", calls=(CALL,), outputs=(OUTPUT,), fresh_outputs=True)
    assert read([ASKED, CALL, OUTPUT]) == done
    assert not read([ASKED, CALL, OUTPUT, ANSWERED]).fresh_outputs


def test_a_picture_is_noticed_only_in_the_open_message() -> None:
    shown = Message(role="user", content=(InputImage("data:,"),))
    assert read([shown]).shown_image
    assert not read([shown, ASKED]).shown_image


def test_only_the_newest_items_are_read() -> None:
    assert len(read([ANSWERED] * 5000).turns) == 200
