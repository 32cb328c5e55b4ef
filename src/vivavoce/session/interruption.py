"""Decides whether speech over an answer is meant to interrupt it. Pure functions.

Three kinds of evidence are used, each as soon as there is any: the words so far, the length, the
level and the brightness of the sound, and how much it resembles the answer that is being played.

Words that only say "I am listening" do not interrupt, whatever their sound. A hum is a backchannel,
whatever words a recogniser finds in it, and a voice that is far softer than the user's belongs to
somebody else. Of other sounds a trained judge weighs length, level, silence and words, where the
user's usual level is known and the recogniser gives partial results: see interruption_model.py.

Elsewhere "stop" and similar words interrupt, and at once unless they are soft. Several other words
interrupt once the sound is long enough to hold them, because recognisers turn the first 300 ms of a
slow "mm-hm" into words. Until there are such words, the log odds of an interruption grow with the
length and the level of the sound: interruptions are as loud as a turn or louder, and backchannels
are softer.

Later evidence decides the remaining cases, at the latest the end of the transcript: "stop" and
sentences always interrupt then.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from vivavoce.session.interruption_model import OverlapEvidence, odds

Verdict: TypeAlias = Literal["undecided", "backchannel", "interruption", "noise"]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=5_000)]
Weight: TypeAlias = Annotated[float, Meta(ge=0, le=4)]
LevelWeight: TypeAlias = Annotated[float, Meta(ge=0, le=24)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]

MIN_SOUND_MS = 160
"""A sound without words does not interrupt before this length, however loud it is."""
BEGUN_MS, BEGUN_WORDS_MS = 850, 550
"""Several words, the first of which may belong to a backchannel ("I see" is first recognised as "I
say"), interrupt from the first length of the sound on if it is soft, else from the second."""
LOUD_MS = 900
"""A sound without words interrupts from this length on, whatever its level."""
FIRST_WORD_MS = 400
"""Recognisers are not sure of a first word: a soft one that would interrupt does so from this
length of the sound on."""
MIN_WORD_MS = 200
"""Several words interrupt only if the sound lasts this long for each: nobody speaks faster."""
SOFT_DB = -1.5
"""A sound up to this level is soft."""
BURST_MS = (0, 700, 500)
"""A soft sound of up to this length, with one or two words that do not interrupt, is a backchannel:
"hmm" is recognised as "them", "mmm" as "am I"."""
FIRST_MS, FIRST_ODDS = 96, 0.35
"""Up to the first length the trained judge asks for so much lower log odds: what begins as loud as
a turn is seldom a backchannel, and those that become as loud do so later."""
MAX_HUM = 0.02
"""A sound of at most this brightness is a hum, see brightness(): "mm-hm" has 0.01, vowels have 0.03
to 0.2, consonants more."""
MAX_HUM_MS = 1000
"""A hum that lasts longer is a voice."""
MAX_LEVEL_DB = 12.0
"""A difference from the user's usual level counts up to this many dB."""
MIN_OWN_WORDS = 3
"""So many words that the answer has just said, in the same order, are its echo and not the
user's."""
MIN_OWN_SHARE = 0.7
"""... and this share of all words: a recogniser mistakes some of them."""
MAX_OTHER_WORDS = 2
"""So many words at the end that the answer did not say are the user's."""
MAX_COMPARED_WORDS = 60
MIN_ENVELOPE = 50
"""An envelope needs at least this many values, of 20 ms each, for a correlation to be used: 0.4 s
of any speech often has a correlation of 0.9 with some part of an answer."""
MAX_ECHO_LAG = 25
"""The longest delay of an echo, in values of an envelope."""


class InterruptionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[interruption]: what counts as an interruption where `turn_detection.interruption` is
    "judged"."""

    sound_ms: Milliseconds = 480
    """Speech without words interrupts after this time."""
    early_ms: Milliseconds = 280
    """... and after this time if the user's usual level is known, and the recogniser gives partial
    results, so that most backchannels are recognised by then."""
    length_weight: Weight = 1.0
    """Log odds of an interruption for each further 100 ms of sound."""
    level_weight: LevelWeight = 8.0
    """Log odds for each 6 dB above the user's usual level; 0: the level does not count."""
    trained: bool = True
    """Whether the trained judge decides where early_ms counts, instead of the four above."""
    trained_odds: Annotated[float, Meta(ge=-8, le=8)] = 0.75
    """The log odds from which on it takes a sound for an interruption."""
    far_db: Annotated[float, Meta(ge=0, le=60)] = 15.0
    """A voice that is so much softer than the user's does not interrupt; 0: there is no such
    limit."""
    settle_ms: Milliseconds = 160
    """The silence that ends a short sound."""
    backchannel_ms: Milliseconds = 1500
    """A backchannel that lasts longer interrupts nevertheless."""
    answer_ms: Milliseconds = 1000
    """A backchannel that begins in the last milliseconds of an answer is a reply to it."""
    own_voice: Share = 0.8
    """The correlation between the envelopes of the microphone and of the answer from which on the
    sound is the echo of the answer; 1: no sound is."""
    backchannels: tuple[str, ...] = ()
    """Words or phrases in any language, in addition to those of session/interruption.py."""


class Overlap(msgspec.Struct, frozen=True):
    """What is known about speech that began while an answer was played."""

    sound_ms: int
    """From its beginning to its last window with speech."""
    silence_ms: int = 0
    """Since then."""
    level_db: float = 0.0
    """Above the user's usual level; 0: unknown."""
    brightness: float = 1.0
    """See brightness(); 1: unknown."""
    words: str = ""
    complete: bool = False
    """Whether no more words come."""
    language: str | None = None
    early: bool = False
    """Whether early_ms counts."""
    answer: str = ""
    """The words of the answer that are being played."""
    echo: float = 0.0
    """The correlation with the envelope of the answer, see correlation()."""


_HUM = re.compile(r"(?:m+-?h+m*|h+m+|m+|u+h+-?h+u+h+|u+h+|a+h+a*|o+h+|u+m+|e+r+m*|ä+h*m*|e+h+)")
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_PHRASES: Mapping[str, str] = {
    "en": "yeah, yep, yup, yes, ok, okay, right, sure, good, great, nice, cool, fine, true, "
    "really, "
    "exactly, absolutely, definitely, indeed, of course, i see, i know, i understand, got it, "
    "go on, go ahead, all right, alright, makes sense, that makes sense, that's right, "
    "sounds good, wow, uh-huh, mm-hm, interesting, i hear you, totally, fair enough, very good",
    "de": "ja, jo, jep, okay, ok, genau, gut, klar, richtig, stimmt, verstehe, ich verstehe, aha, "
    "ach so, achso, alles klar, na klar, natürlich, sicher, super, schön, prima, ja genau, so so, "
    "ich weiß, interessant, weiter, mach weiter, in ordnung",
    "fr": "oui, ouais, ok, okay, d'accord, bien, très bien, voilà, exactement, tout à fait, "
    "bien sûr, je vois, je comprends, ah bon, c'est vrai, super, parfait, entendu, continuez",
    "es": "sí, si, ok, okay, vale, claro, bueno, bien, muy bien, exacto, ya, ya veo, entiendo, "
    "por supuesto, de acuerdo, correcto, perfecto, ajá, cierto, sigue, siga",
    "it": "sì, si, ok, okay, certo, bene, va bene, esatto, giusto, capisco, ho capito, ah ecco, "
    "d'accordo, perfetto, già, vero, davvero, continua, continui",
    "nl": "ja, jawel, oké, ok, okay, goed, precies, juist, klopt, natuurlijk, snap ik, "
    "ik snap het, ik begrijp het, zeker, mooi, prima, ga door",
    "pt": "sim, ok, okay, certo, claro, bom, muito bem, exato, entendo, entendi, pois, pois é, "
    "com certeza, tá, tá bom, perfeito, isso, verdade, continue",
}
_STOPS = frozenset(
    spoken
    for words in (
        "stop wait no nope hold hang sorry excuse actually but quiet enough what why how can could "
        "please hey listen never shut",
        "stopp halt warte warten nein moment aber entschuldigung was wie warum leise ruhe genug",
        "attends attendez non arrête arrêtez pardon mais excusez quoi pourquoi",
        "para espera espere alto perdón pero basta qué ferma fermati aspetta scusa scusi ma cosa",
        "wacht nee maar genoeg wat pare não desculpa mas chega",
    )
    for spoken in words.split()
)
"""Words that interrupt as soon as they are recognised.

One set for all languages: none of them is a backchannel in another language.
"""
_BY_LANGUAGE: dict[str, frozenset[tuple[str, ...]]] = {}
_LONGEST = 4  # words of a phrase


def judge(overlap: Overlap, settings: InterruptionSettings) -> Verdict:
    """The verdict on speech over an answer, from what is known.

    It is never "undecided" for a complete transcript.
    """
    words = spoken_words(overlap.words)
    if settings.far_db and overlap.level_db <= -settings.far_db:
        return "noise" if overlap.complete else "undecided"
    if is_own_voice(words, overlap, settings):
        return "noise" if overlap.complete else "undecided"
    if overlap.complete and not words:
        return "noise"
    rest = set(without_backchannels(words, overlap.language, settings.backchannels))
    if _is_hum(overlap) and not rest & _STOPS:
        rest.clear()
    if overlap.complete:
        return _of_all_words(rest, overlap, settings)
    if words and not rest:
        return _listening(overlap, settings)
    if overlap.early and settings.trained:
        return "interruption" if _odds_interrupt(rest, overlap, settings) else "undecided"
    if _words_interrupt(words, rest, overlap, settings):
        return "interruption"
    if words and _begins_backchannel(words[0], overlap, settings):
        return "interruption" if overlap.sound_ms >= BEGUN_MS else "undecided"
    return "interruption" if _sound_interrupts(overlap, settings) else "undecided"


def evidence_of(overlap: Overlap, settings: InterruptionSettings) -> OverlapEvidence:
    """What the trained judge is given."""
    words = spoken_words(overlap.words)
    rest = set(without_backchannels(words, overlap.language, settings.backchannels))
    return _evidence(rest, overlap)


def odds_of(overlap: Overlap, settings: InterruptionSettings) -> float:
    """The log odds that a sound without words is an interruption."""
    level = max(-MAX_LEVEL_DB, min(MAX_LEVEL_DB, overlap.level_db))
    limit = settings.early_ms if overlap.early else settings.sound_ms
    length = (overlap.sound_ms - limit) / 100
    return settings.length_weight * length + settings.level_weight * level / 6


def spoken_words(text: str) -> list[str]:
    """The words of a transcript, in lower case and without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFC", text.replace("\u2019", "'")).lower())


def without_backchannels(
    words: list[str], language: str | None, more: tuple[str, ...] = ()
) -> list[str]:
    """The words that are no backchannel. language None: backchannels of any language count."""
    phrases = _phrases(language) | {tuple(spoken_words(phrase)) for phrase in more}
    rest: list[str] = []
    at = 0
    while at < len(words):
        longest = min(_LONGEST, len(words) - at)
        length = next((n for n in range(longest, 0, -1) if tuple(words[at : at + n]) in phrases), 0)
        if not length and not _HUM.fullmatch(words[at]):
            rest.append(words[at])
        at += max(1, length)
    return rest


def is_own_voice(words: list[str], overlap: Overlap, settings: InterruptionSettings) -> bool:
    """Whether the microphone picks up the answer: by the words, else by the envelope."""
    if settings.own_voice < 1 and overlap.echo >= settings.own_voice:
        return True
    if len(words) < MIN_OWN_WORDS:
        return False
    words = words[-MAX_COMPARED_WORDS:]
    played = spoken_words(overlap.answer)[-MAX_COMPARED_WORDS:]
    blocks = SequenceMatcher(None, played, words, autojunk=False).get_matching_blocks()
    shared = sum(block.size for block in blocks)
    last = max((block.b + block.size for block in blocks if block.size), default=0)
    return shared >= MIN_OWN_SHARE * len(words) and len(words) - last < MAX_OTHER_WORDS


def envelope(pcm: bytes, values: int | None = None) -> NDArray[np.float32]:
    """The level of each 20 ms of PCM at 24 kHz, in decibels; of the last `values` if given."""
    frame = 480
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2")
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    if values is not None:
        frames = frames[-values:] if values else frames[:0]
    # einsum converts as it goes: an array of all samples would be new memory each time
    energies = np.einsum("ij,ij->i", frames, frames, dtype=np.float32)
    levels: NDArray[np.float32] = 10 * np.log10(energies / frame + 1.0)
    return levels


def correlation(heard: NDArray[np.float32], played: NDArray[np.float32]) -> float:
    """The highest correlation, 0..1, of recorded with played audio.

    Both are envelopes that end at the same time. The envelope of the played audio may be longer: it
    is searched for an echo that is up to MAX_ECHO_LAG values late.
    """
    size = len(heard)
    if size < MIN_ENVELOPE or float(np.std(heard)) < 1.0:
        return 0.0
    best = 0.0
    for lag in range(MAX_ECHO_LAG + 1):
        end = len(played) - lag
        if end < size:
            break
        part = played[end - size : end]
        if float(np.std(part)) >= 1.0:
            best = max(best, float(np.corrcoef(heard, part)[0, 1]))
    return best


def brightness(pcm: bytes) -> float:
    """The energy of the differences of samples over that of the samples, 0..4.

    Of a tone of f Hz it is 4 sin^2(pi f / 24000): 0.006 at 300 Hz, 0.07 at 1 kHz, 0.6 at 3 kHz. Of
    silence it is 1.
    """
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2").astype(np.float32)
    steps = np.diff(samples)
    energy, changes = float(samples @ samples), float(steps @ steps)
    return changes / energy if changes else 1.0


def level_db(pcm: bytes) -> float:
    """The level of PCM in decibels of full scale; of its loudest half of 20 ms pieces."""
    levels = np.sort(envelope(pcm))
    if not len(levels):
        return -math.inf
    loud = np.power(10.0, levels[len(levels) // 2 :] / 10)
    return float(10 * np.log10(loud.mean())) - 20 * math.log10(32768)


def _of_all_words(rest: set[str], overlap: Overlap, settings: InterruptionSettings) -> Verdict:
    """The verdict on a complete transcript; rest: its words that are no backchannel."""
    if not rest:
        return _listening(overlap, settings)
    if overlap.early and settings.trained:
        meant = rest & _STOPS or _holds_sentence(rest, overlap)
        interrupts = meant or _odds_interrupt(rest, overlap, settings)
        return "interruption" if interrupts else "backchannel"
    if rest & _STOPS or not _is_soft(overlap) or len(rest) >= len(BURST_MS):
        return "interruption"
    return "backchannel" if overlap.sound_ms <= BURST_MS[len(rest)] else "interruption"


def _odds_interrupt(rest: set[str], overlap: Overlap, settings: InterruptionSettings) -> bool:
    """Whether the trained judge takes a sound for an interruption; a hum without words is none."""
    if _is_hum(overlap) and not rest:
        return False
    lower = FIRST_ODDS if overlap.sound_ms <= FIRST_MS else 0.0
    return odds(_evidence(rest, overlap)) >= settings.trained_odds - lower


def _evidence(rest: set[str], overlap: Overlap) -> OverlapEvidence:
    stop = bool(rest & _STOPS)
    return OverlapEvidence(
        overlap.sound_ms, overlap.silence_ms, overlap.level_db, others=len(rest), stop=stop
    )


def _holds_sentence(rest: set[str], overlap: Overlap) -> bool:
    """Whether there are several words in a sound that is long enough to hold them."""
    return len(rest) >= len(BURST_MS) and overlap.sound_ms >= MIN_WORD_MS * len(rest)


def _listening(overlap: Overlap, settings: InterruptionSettings) -> Verdict:
    """The verdict on words that are all backchannels."""
    if overlap.sound_ms > settings.backchannel_ms:
        return "interruption"
    settled = overlap.complete or overlap.silence_ms >= settings.settle_ms
    return "backchannel" if settled else "undecided"


def _words_interrupt(
    words: list[str], rest: set[str], overlap: Overlap, settings: InterruptionSettings
) -> bool:
    """Whether the first words interrupt by themselves; rest: those that are no backchannel."""
    if rest & _STOPS:
        return not _is_soft(overlap) or overlap.sound_ms >= FIRST_WORD_MS
    if len(rest) < 2:
        return False
    begun = _begins_backchannel(words[0], overlap, settings)
    least = (BEGUN_MS if _is_soft(overlap) else BEGUN_WORDS_MS) if begun else 0
    return overlap.sound_ms >= max(least, MIN_WORD_MS * len(set(words)))


def _sound_interrupts(overlap: Overlap, settings: InterruptionSettings) -> bool:
    """Whether the sound interrupts, while its words decide nothing yet."""
    if overlap.silence_ms >= settings.settle_ms or overlap.sound_ms < MIN_SOUND_MS:
        return False
    if _is_hum(overlap):
        return False
    return overlap.sound_ms >= LOUD_MS or odds_of(overlap, settings) >= 0


def _is_soft(overlap: Overlap) -> bool:
    return overlap.level_db <= SOFT_DB


def _is_hum(overlap: Overlap) -> bool:
    return overlap.brightness <= MAX_HUM and overlap.sound_ms <= MAX_HUM_MS


def _begins_backchannel(word: str, overlap: Overlap, settings: InterruptionSettings) -> bool:
    """Whether a partial first word may still become a backchannel: "ye", "o"."""
    phrases = _phrases(overlap.language)
    more = [spoken_words(phrase) for phrase in settings.backchannels]
    firsts = {phrase[0] for phrase in phrases} | {phrase[0] for phrase in more if phrase}
    return any(first.startswith(word) for first in firsts)


def _phrases(language: str | None) -> frozenset[tuple[str, ...]]:
    key = re.split("[-_]", (language or "").lower())[0]
    if key not in _PHRASES:
        key = ""
    if key not in _BY_LANGUAGE:
        lists = [_PHRASES[key]] if key else list(_PHRASES.values())
        _BY_LANGUAGE[key] = frozenset(
            tuple(spoken_words(phrase)) for each in lists for phrase in each.split(",")
        )
    return _BY_LANGUAGE[key]
