"""Text as the phonemes that Kokoro was trained with.

English: the text analysis of hibari-tts (Apache-2.0). Other languages: espeak-ng, if the package
espeakng_loader is installed (GPL-3), with affricates as one sign.
"""

import ctypes
import importlib.util
import re
from typing import Any

LANGUAGES = {"en-us": "en-us", "en-gb": "en-gb", "es": "es", "fr": "fr-fr", "hi": "hi"}
LANGUAGES |= {"it": "it", "pt": "pt-br"}
"""The language of espeak-ng by ours."""
_AFFRICATES = {"t\u0283": "\u02a7", "d\u0292": "\u02a4", "ts": "\u02a6", "dz": "\u02a3"}
_TIE = "\u0361"
_SIGNS = re.compile(r"([.,!?;:\u2014\u2026]+)")
_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_UTF8, _IPA = 1, 2


class Phonemes:
    """Text analysis of all languages, each loaded when it is first needed. Not thread-safe."""

    def __init__(self) -> None:
        self._english: dict[bool, Any] = {}
        self._espeak: _Espeak | None = None

    def of(self, text: str, language: str) -> str:
        """The phonemes of a text; "" where nothing that is installed reads the language."""
        if language.startswith("en") and importlib.util.find_spec("hibari") is not None:
            british = language == "en-gb"
            if british not in self._english:
                from hibari.g2p import G2P

                self._english[british] = G2P(british=british)
            return str(self._english[british](text))
        if importlib.util.find_spec("espeakng_loader") is None:
            return ""
        self._espeak = self._espeak or _Espeak()
        parts = _SIGNS.split(text)
        spoken = [self._espeak.phonemes(part, LANGUAGES[language]) for part in parts[::2]]
        signs = [sign[:1] for sign in parts[1::2]] + [""]
        both = [f"{one}{sign}" for one, sign in zip(spoken, signs, strict=True)]
        return " ".join(both).strip()


class _Espeak:
    """espeak-ng's own text analysis; `espeak-ng/speak_lib.h`, version 1.52."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p

    def phonemes(self, text: str, voice: str) -> str:
        if not text.strip() or self._library.espeak_SetVoiceByName(voice.encode()):
            return ""
        held = ctypes.create_string_buffer(text.encode())
        at = ctypes.c_void_p(ctypes.addressof(held))
        clauses = []
        while at.value:  # a clause each time
            made = self._library.espeak_TextToPhonemes(ctypes.byref(at), _UTF8, _IPA)
            clauses.append((made or b"").decode("utf-8", "ignore"))
        found = " ".join(clauses).replace(_TIE, "")
        found = re.sub(r"\([a-z-]+\)", "", found)  # "(en)": words in another language
        for pair, sign in _AFFRICATES.items():
            found = found.replace(pair, sign)
        return found.strip()
