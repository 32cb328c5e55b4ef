"""For people who test engines and clients: conformance checks, scripted engines, virtual time.

* `check_vad`, `check_turn`, `check_stt`, `check_llm`, `check_tts`, `check_clean`, `check_speaker`:
  what every engine must do. They raise AssertionError; no test framework is needed.
* `ScriptedSTT` and the like: engines that follow a script (docs/engines.md, "Scripted engines").
* `run`: asyncio.run in virtual time, for code without threads, processes and sockets.
"""

from vivavoce.engines.scripted.engines import (
    ScriptedLLM,
    ScriptedSpeaker,
    ScriptedSTT,
    ScriptedTTS,
    ScriptedTurn,
    ScriptedVAD,
)
from vivavoce.engines.scripted.scripts import (
    LLMScript,
    ScriptedAnswer,
    ScriptedCall,
    ScriptedTranscript,
    SpeakerScript,
    STTScript,
    TTSScript,
    TurnScript,
    VADScript,
)
from vivavoce.testing.conformance import (
    check_answer,
    check_clean,
    check_engine,
    check_llm,
    check_speaker,
    check_speech,
    check_stt,
    check_transcripts,
    check_tts,
    check_turn,
    check_vad,
)
from vivavoce.testing.virtual_time import VirtualTimeLoop, run

__all__ = [
    "LLMScript",
    "STTScript",
    "ScriptedAnswer",
    "ScriptedCall",
    "ScriptedLLM",
    "ScriptedSTT",
    "ScriptedSpeaker",
    "ScriptedTTS",
    "ScriptedTranscript",
    "ScriptedTurn",
    "ScriptedVAD",
    "SpeakerScript",
    "TTSScript",
    "TurnScript",
    "VADScript",
    "VirtualTimeLoop",
    "check_answer",
    "check_clean",
    "check_engine",
    "check_llm",
    "check_speaker",
    "check_speech",
    "check_stt",
    "check_transcripts",
    "check_tts",
    "check_turn",
    "check_vad",
    "run",
]
