"""Which kind of model of sherpa-onnx a folder holds: by the names of its files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from vivavoce.errors import EngineError

Layout: TypeAlias = Literal[
    "streaming", "transducer", "nemo_transducer", "nemo_ctc", "sense_voice", "moonshine", "whisper"
]
VoiceLayout: TypeAlias = Literal["vits", "kokoro", "matcha"]


@dataclass(frozen=True, slots=True)
class SherpaFolder:
    """A folder, its layout, and the paths of its files by what they are for."""

    layout: str
    paths: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Files that a layout has: patterns of names by what the files are for."""

    layout: str
    files: dict[str, tuple[str, ...]]
    named: tuple[str, ...] = ()
    """The folder has one of these in its name; (): it may have any name."""


_TOKENS = ("*tokens.txt",)
_TRANSDUCER: dict[str, tuple[str, ...]] = {
    "encoder": ("*encoder*.onnx",),
    "decoder": ("*decoder*.onnx",),
    "joiner": ("*joiner*.onnx",),
    "tokens": _TOKENS,
}
RECOGNISERS = (
    _Pattern("streaming", _TRANSDUCER, ("streaming", "online")),
    _Pattern("nemo_transducer", _TRANSDUCER, ("nemo", "parakeet", "canary")),
    _Pattern("transducer", _TRANSDUCER),
    _Pattern(
        "moonshine",
        {
            "encoder": ("encoder_model*.ort", "encoder*.ort", "encoder_model*.onnx"),
            "decoder": ("decoder_model_merged*.ort", "decoder*merged*.onnx"),
            "tokens": ("tokens.txt", "tokenizer.bin"),
        },
    ),
    _Pattern("sense_voice", {"model": ("model*.onnx",), "tokens": _TOKENS}, ("sense",)),
    _Pattern(
        "nemo_ctc", {"model": ("model*.onnx",), "tokens": _TOKENS}, ("nemo", "parakeet", "ctc")
    ),
    _Pattern(
        "whisper",
        {"encoder": ("*encoder*.onnx",), "decoder": ("*decoder*.onnx",), "tokens": _TOKENS},
        ("whisper",),
    ),
)
VOICES = (
    _Pattern("kokoro", {"model": ("model*.onnx",), "voices": ("voices.bin",), "tokens": _TOKENS}),
    _Pattern(
        "matcha",
        {"model": ("model-steps*.onnx",), "vocoder": ("*voc*.onnx",), "tokens": _TOKENS},
    ),
    _Pattern("vits", {"model": ("*.onnx",), "tokens": _TOKENS}),
)


def recognised_folder(folder: Path, layout: str = "auto") -> SherpaFolder:
    """The model in a folder. Raises EngineError: no layout fits, or not the one that is named."""
    return _matched(folder, layout, RECOGNISERS, "a recogniser of sherpa-onnx")


def voice_folder(folder: Path, layout: str = "auto") -> SherpaFolder:
    """The voice in a folder. Raises EngineError, likewise."""
    return _matched(folder, layout, VOICES, "a voice of sherpa-onnx")


def _matched(folder: Path, layout: str, patterns: tuple[_Pattern, ...], what: str) -> SherpaFolder:
    name = folder.resolve().name.lower()
    for pattern in patterns:
        if layout not in ("auto", pattern.layout):
            continue
        if layout == "auto" and pattern.named and not any(part in name for part in pattern.named):
            continue
        found = {part: _first(folder, globs) for part, globs in pattern.files.items()}
        if all(found.values()):
            return SherpaFolder(pattern.layout, {part: str(path) for part, path in found.items()})
    known = ", ".join(pattern.layout for pattern in patterns)
    wanted = what if layout == "auto" else f"{what} with the layout {layout}"
    raise EngineError(
        f"model: the folder {folder} does not hold {wanted}; unpack a model of sherpa-onnx there, "
        f"or set layout to one of {known}"
    )


def _first(folder: Path, globs: tuple[str, ...]) -> Path | None:
    """The first file that fits; weights in int8 come before others."""
    for glob in globs:
        found = sorted(folder.glob(glob), key=lambda path: ("int8" not in path.name, path.name))
        if found:
            return found[0]
    return None
