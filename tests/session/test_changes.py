"""When a change of settings holds."""

from tests.session.stage import (
    WHISPER,
    a_session,
    answered,
    done,
    hear,
    spoke,
    tell,
    the,
    transcribe,
    types,
    update,
    write,
)
from vivavoce.protocol.session import (
    AudioInputPatch,
    AudioOutputPatch,
    AudioPatch,
    RealtimePatch,
    TranscriptionPatch,
)
from vivavoce.session.effects import Generate, StartTranscription
from vivavoce.session.facts import OutputFinished


def test_changed_settings_hold_from_the_next_turn_on() -> None:
    session = a_session(transcription=WHISPER, instructions="Be brief.")
    began = hear(session, "####")
    update(
        session,
        RealtimePatch(
            model="local",
            instructions="Sing.",
            audio=AudioPatch(
                input=AudioInputPatch(transcription=TranscriptionPatch(language="it")),
                output=AudioOutputPatch(voice="ash"),
            ),
        ),
    )
    assert (the(StartTranscription, began).language, the(StartTranscription, began).model) == (
        None,
        "gpt-realtime",
    )
    first = the(Generate, transcribe(session, hear(session, 16 * "."), "hello")).prompt
    assert (first.instructions, first.voice, first.model) == ("Sing.", "ash", "local")
    update(session, RealtimePatch(instructions="Hum."))
    assert the(StartTranscription, hear(session, "####")).language == "it"


def test_running_answer_is_not_changed() -> None:
    session = a_session()
    effects = write(session, "hello")
    update(session, RealtimePatch(output_modalities=("text",)))
    sent = tell(session, spoke(answered(effects), "good day"), OutputFinished(answered(effects)))
    assert "response.output_audio.delta" in types(sent)
    assert done(sent).output_modalities == ("audio",)
