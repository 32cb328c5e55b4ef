"""Builds the configured models: selects the engine behind `auto`, builds each engine once."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec

from vivavoce.audio.formats import RATE
from vivavoce.audio.resample import Resampler
from vivavoce.configured import (
    STAGES,
    ConfiguredEngines,
    check_engine_tables,
    check_installed,
    licence_problem,
    load_all,
    made_engine,
)
from vivavoce.engines import registry
from vivavoce.engines.base import LLM, STT, TTS, VAD, Cleaner, TurnModel
from vivavoce.engines.openai import discovery
from vivavoce.engines.packs import problem_of
from vivavoce.errors import AudioError, EngineError, EngineNotUsable, SettingsError
from vivavoce.runtime.catalog import Cascade, ModelCatalog
from vivavoce.runtime.chains import FallbackLLM, FallbackSTT, FallbackTTS
from vivavoce.runtime.choice import DEFAULT, EngineChoice
from vivavoce.runtime.fallback import Member
from vivavoce.runtime.reload import EnginePool
from vivavoce.runtime.upstream import AZURE_PATH, OPENAI_URL, XAI_URL, Relay
from vivavoce.runtime.vad_batcher import VadBatcher
from vivavoce.secret import Secret
from vivavoce.settings import AUTO, CascadeModel, Kind, RelayModel, Settings, aliases_of

log = logging.getLogger(__name__)

DEFAULT_VOICE = "marin"  # the default of OpenAI's sessions
OPENAI_MODEL = "gpt-5-mini"  # for an endpoint that has a key and no model
NONE = "none"  # the name of no cleaner


# --- selection of engines for `auto`


class Found(NamedTuple):
    """A candidate can be used: options to set on top of the configured ones, and the reason."""

    options: Mapping[str, object] = {}
    reason: str = ""
    """Shown at start; empty for the best choice."""
    fallback: str = ""
    """An engine to put behind this one: for what this one cannot do, such as other languages."""


class Surroundings(NamedTuple):
    """What the conditions of the candidates look at."""

    settings: Settings
    local_servers: tuple[discovery.LocalServer, ...]


Condition = Callable[[Surroundings], Awaitable[Found | None]]


class Candidate(NamedTuple):
    engine: str
    condition: Condition
    """Whether the engine can be used, found out without importing it."""


def _installed(package: str) -> Condition:
    async def condition(_: Surroundings) -> Found | None:
        return Found() if find_spec(package) else None

    return condition


async def _pack_problem(kind: Kind, engine: str, pack: str, at: Surroundings) -> str | None:
    """Why an engine of onnxruntime with that pack cannot be used."""
    if not find_spec("onnxruntime"):
        return f"onnxruntime, which runs {engine}, is missing"
    configured = at.settings.engines.get(kind, {}).get(engine, {})
    if configured.get("model", pack) != pack:
        return None  # a folder: its error names it
    return await asyncio.to_thread(problem_of, pack)


def _packed(kind: Kind, engine: str, pack: str) -> tuple[Condition, Condition]:
    """The conditions of an engine with that pack, and of the one in its place."""

    async def condition(at: Surroundings) -> Found | None:
        return None if await _pack_problem(kind, engine, pack, at) else Found()

    async def without(at: Surroundings) -> Found:
        return Found(reason=await _pack_problem(kind, engine, pack, at) or "")

    return condition, without


_moonshine, _without_moonshine = _packed("stt", "moonshine", "moonshine-tiny-en")
_smart_turn, _without_smart_turn = _packed("turn", "smart-turn", "smart-turn-v3")


async def _silero(at: Surroundings) -> Found | None:
    return None if (await _without_silero(at)).reason else Found()


async def _without_silero(at: Surroundings) -> Found:
    configured = at.settings.engines.get("vad", {}).get("silero", {})
    if configured.get("weights") or find_spec("faster_whisper"):  # the package carries them, too
        return Found()
    problem = await asyncio.to_thread(problem_of, "silero-vad-v6")
    return Found(reason=f"by loudness: {problem}" if problem else "")


async def _resemblyzer(at: Surroundings) -> Found | None:
    if "resemblyzer" not in registry.names("speaker"):
        return None
    configured = at.settings.engines.get("speaker", {}).get("resemblyzer", {})
    pack = configured.get("model", "resemblyzer") == "resemblyzer"  # else a folder
    return None if pack and await asyncio.to_thread(problem_of, "resemblyzer") else Found()


async def _hibari(_: Surroundings) -> Found | None:
    if not find_spec("hibari") or not find_spec("onnxruntime"):
        return None
    return Found(fallback="espeak" if find_spec("espeakng_loader") else "")


def _always(reason: str = "") -> Condition:
    async def condition(_: Surroundings) -> Found:
        return Found(reason=reason)

    return condition


async def _configured_llm(at: Surroundings) -> Found | None:
    configured = at.settings.engines.get("llm", {}).get("openai", {})
    if not configured:
        return None
    known = configured.get("model") or configured.get("base_url")
    return Found({} if known else {"model": OPENAI_MODEL}, "configured")


async def _local_llm(at: Surroundings) -> Found | None:
    found = await discovery.find_local_model(at.local_servers, own_port=at.settings.server.port)
    if found is None:
        return None
    options = {"base_url": found.base_url, "model": found.model}
    return Found(options, f"{found.server} answers at {found.base_url}")


CANDIDATES: Mapping[Kind, tuple[Candidate, ...]] = {
    "vad": (
        Candidate("silero", _silero),
        Candidate("energy", _without_silero),
    ),
    "turn": (Candidate("smart-turn", _smart_turn), Candidate("words", _without_smart_turn)),
    # the last candidate is used in any case: where its package is missing, its error says so
    "stt": (
        Candidate("moonshine", _moonshine),
        Candidate("pocketsphinx", _without_moonshine),
    ),
    "llm": (
        Candidate("openai", _configured_llm),
        Candidate("openai", _local_llm),
        Candidate("builtin", _always("no model is configured and none answers on this machine")),
    ),
    "tts": (
        Candidate("hibari", _hibari),
        Candidate("espeak", _always("hibari-tts, which carries a neural voice, is missing")),
    ),
    "clean": (
        Candidate("webrtc", _installed("livekit")),
        Candidate(
            NONE,
            _always("noise_reduction has no effect without livekit: pip install 'vivavoce[room]'"),
        ),
    ),
    "speaker": (
        Candidate("resemblyzer", _resemblyzer),
        Candidate(
            NONE, _always("speakers are not told apart without vivavoce models pull resemblyzer")
        ),
    ),
}
"""The candidates for `auto`, by kind, the best first."""


class Selected(msgspec.Struct, frozen=True):
    """An engine that was chosen by name or by `auto`."""

    kind: Kind
    name: str
    reason: str = ""
    options: Mapping[str, object] = msgspec.field(default_factory=dict)
    """On top of the configured ones."""
    fallback: str = ""
    """An engine that `auto` puts behind it; none of the settings' own."""
    stands_in: bool = False
    """In place of one that cannot be used."""


async def select(kind: Kind, name: str, at: Surroundings) -> Selected:
    """The engine of that name; for `auto` the first candidate whose condition holds."""
    if name != AUTO:
        return Selected(kind, name)
    for candidate in CANDIDATES[kind]:
        if found := await candidate.condition(at):
            return Selected(kind, candidate.engine, found.reason, found.options, found.fallback)
    raise AssertionError(f"the last candidate of {kind} has a condition")


# --- building


class BuiltModels(msgspec.Struct, frozen=True):
    """All configured models, their engines entered."""

    catalog: ModelCatalog
    selected: Mapping[str, tuple[Selected, ...]]
    """The engines of each cascade model."""
    engines: Mapping[str, object]
    """Every engine by `kind:name`."""
    inventory: ConfiguredEngines


@asynccontextmanager
async def built_models(
    settings: Settings,
    local_servers: tuple[discovery.LocalServer, ...] = discovery.LOCAL_SERVERS,
    pool: EnginePool | None = None,
) -> AsyncIterator[BuiltModels]:
    """Enter every engine that a model names; leave them all at the end. Raises SettingsError.

    pool: engines that run already, and are used where their options are the same.
    """
    check_engine_tables(settings)
    async with AsyncExitStack() as stack:
        builder = _Builder(Surroundings(settings, local_servers), stack, pool or EnginePool())
        stack.push_async_callback(builder.source.close)
        cascades: dict[str, Cascade] = {}
        selected: dict[str, tuple[Selected, ...]] = {}
        relays: dict[str, Relay] = {}
        for name, model in settings.models.items():
            if isinstance(model, RelayModel):
                relays[name] = relay_of(name, model, Secret(settings.server.secret))
            else:
                cascades[name], selected[name] = await builder.cascade(name, model)
                builder.source.add_model(name, cascades[name])
        aliases = {
            name: tuple(target for target in targets if target != DEFAULT)
            for name, targets in aliases_of(settings).items()
        }
        if settings.server.strict:
            await load_all(builder.by_name())
        catalog = ModelCatalog(cascades, default_cascade(settings, cascades), relays, aliases)
        yield BuiltModels(catalog, selected, builder.by_name(), builder.source)


def relay_of(name: str, model: RelayModel, pseudonym_secret: Secret = Secret("")) -> Relay:
    """A relay model; `name` is the one that clients give."""
    return Relay(
        _upstream_url(model),
        model.model or name,
        Secret(model.api_key),
        model.voice or DEFAULT_VOICE,
        model.fallback,
        model.token_command,
        pseudonym_secret,
        media=model.media,
    )


def _upstream_url(model: RelayModel) -> str:
    match model.upstream:
        case "openai":
            return OPENAI_URL
        case "xai":
            return XAI_URL
        case "azure":
            return f"wss://{model.resource}.openai.azure.com{AZURE_PATH}"
        case url:
            return url


def default_cascade(settings: Settings, cascades: Mapping[str, Cascade]) -> str:
    """The cascade that serves unknown names, and the default model's fallback if that is a relay.

    Raises SettingsError without one.
    """
    name = settings.default_model
    default = settings.models[name]
    if isinstance(default, CascadeModel):
        return name
    if not cascades:
        raise SettingsError(
            f"[models.{name}] a relay needs a cascade model, which continues its conversations "
            f"when the other server fails: add one, such as an empty table [models.local]"
        )
    return default.fallback if default.fallback in cascades else next(iter(cascades))


@dataclass(slots=True)
class _Builder:
    """Builds cascades; models that name the same engine share it."""

    at: Surroundings
    stack: AsyncExitStack
    pool: EnginePool
    source: ConfiguredEngines = field(init=False)
    choice: EngineChoice = field(init=False)
    _engines: dict[tuple[Kind, str], Any] = field(default_factory=dict)
    _batchers: dict[str, VadBatcher] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = self.at.settings
        self.source = ConfiguredEngines(settings, self.pool)
        self.choice = EngineChoice(aliases_of(settings), self.source, settings.fallback)

    async def cascade(self, name: str, model: CascadeModel) -> tuple[Cascade, tuple[Selected, ...]]:
        """A model with its engines entered. Raises SettingsError."""
        chosen = {
            kind: await select(kind, engine, self.at) for kind, engine in model.engines.items()
        }
        for each in chosen.values():
            self._check_installed(name, each)
        speaker = chosen["speaker"].name
        vad: VAD = await self._usable(chosen, "vad")
        turn: TurnModel = await self._usable(chosen, "turn")
        stt: STT = await self._chain(FallbackSTT, name, chosen, model, "stt")
        llm: LLM = await self._chain(FallbackLLM, name, chosen, model, "llm")
        tts: TTS = await self._chain(FallbackTTS, name, chosen, model, "tts")
        cleaner: Cleaner | None = await self._usable(chosen, "clean")
        _check_rate(chosen["stt"], RATE, stt.sample_rate)
        _check_rate(chosen["tts"], tts.sample_rate, RATE)
        cascade = Cascade(
            self._batcher(chosen["vad"], vad),
            turn,
            stt,
            llm,
            tts,
            cleaner,
            default_voice=self._voice(name, model, tts, chosen["tts"]),
            apology=self.at.settings.fallback.apology,
            names={stage: chosen[stage].name for stage in STAGES},
            choice=self.choice,
            speaker=None if speaker == NONE else self.source.speaker(speaker),
        )
        return cascade, tuple(chosen.values())

    async def _chain(
        self,
        make: type[FallbackSTT] | type[FallbackLLM] | type[FallbackTTS],
        name: str,
        chosen: dict[Kind, Selected],
        model: CascadeModel,
        kind: Kind,
    ) -> Any:
        """The engine, or a chain of it and of those that take over where it fails.

        Those that cannot be used are left out, unless `strict`; the first of the chain is `chosen`.
        """
        first, others = chosen[kind], model.fallbacks[kind]
        if first.fallback and first.fallback not in others:
            others = (*others, first.fallback)
        members: list[Member[Any]] = []
        for other in (first, *[await select(kind, each, self.at) for each in others]):
            self._check_installed(name, other)
            try:
                engine = await self._enter(other)
            except EngineNotUsable as exc:
                if self.at.settings.server.strict:
                    raise
                if other is first and not others:
                    break
                log.warning("%s; it is left out", exc)
                continue
            if not members:
                chosen[kind] = other
            elif kind == "stt":
                _check_rate(other, members[0].engine.sample_rate, engine.sample_rate)
            elif kind == "tts":
                _check_rate(other, engine.sample_rate, members[0].engine.sample_rate)
            members.append(Member(other.name, engine))
        if not members:
            return await self._usable(chosen, kind)
        return make(members, self.at.settings.fallback) if len(members) > 1 else members[0].engine

    async def _usable(self, chosen: dict[Kind, Selected], kind: Kind) -> Any:
        """The chosen engine; where it cannot be used another, which is `chosen` then.

        Raises EngineNotUsable: there is none, or the settings are `strict`.
        """
        wanted = chosen[kind]
        try:
            return await self._enter(wanted)
        except EngineNotUsable as exc:
            if self.at.settings.server.strict:
                raise
            problem = exc
        for candidate in CANDIDATES[kind]:
            found = None if candidate.engine == wanted.name else await candidate.condition(self.at)
            if found is None:
                continue
            reason = f"in place of {wanted.name}: {problem}"
            other = Selected(kind, candidate.engine, reason, found.options, stands_in=True)
            with suppress(EngineNotUsable):
                engine = await self._enter(other)
                log.warning("%s; %s is used in its place", problem, other.name)
                chosen[kind] = other
                return engine
        raise problem

    def by_name(self) -> dict[str, object]:
        """Every engine that was built, by `kind:name`."""
        return {f"{kind}:{name}": engine for (kind, name), engine in self._engines.items()}

    def _options(self, engine: Selected) -> dict[str, Any]:
        return dict(self.at.settings.engines.get(engine.kind, {}).get(engine.name, {}))

    def _check_installed(self, model: str, engine: Selected) -> None:
        real = self._options(engine).get("engine", engine.name)
        if engine.kind not in ("clean", "speaker") or real != NONE:
            check_installed(engine.kind, real, f"[models.{model}]")

    async def _enter(self, engine: Selected) -> Any:
        """The engine, ready for use; its class has the Protocol of its kind. None: no cleaner.

        Raises EngineNotUsable, and SettingsError for a mistake in its options.
        """
        key = (engine.kind, engine.name)
        if key == ("clean", NONE):
            return None
        if key not in self._engines:
            options = self._options(engine) | dict(engine.options)
            made = await asyncio.to_thread(  # it may import much, while sessions run
                made_engine, self.at.settings, engine.kind, engine.name, options
            )
            place = f"[engines.{engine.kind}.{engine.name}]"
            if (problem := licence_problem(self.at.settings, made.model)) is not None:
                raise EngineNotUsable(f"{place} {problem}")
            try:
                shared = self.pool.use(engine.kind, engine.name, made.engine, made.settings)
                self._engines[key] = await self.stack.enter_async_context(shared)
            except EngineError as exc:
                raise EngineNotUsable(registry.with_place(place, exc)) from exc
            self.source.add(engine.kind, engine.name, self._engines[key], made.model)
        return self._engines[key]

    def _batcher(self, engine: Selected, vad: VAD) -> VadBatcher:
        if engine.name not in self._batchers:
            try:
                self._batchers[engine.name] = VadBatcher(vad)
            except ValueError as exc:
                raise SettingsError(f"[engines.vad.{engine.name}] {exc}") from exc
        return self._batchers[engine.name]

    def _voice(self, name: str, model: CascadeModel, tts: TTS, selected: Selected) -> str:
        """The default voice of a model. Raises SettingsError for a voice that it does not have."""
        settings, known = self.at.settings, {voice.id for voice in tts.voices}
        if model.voice:
            place, voice = f"[models.{name}]", model.voice
        elif name == settings.default_model and settings.session.voice:
            place, voice = "[session]", settings.session.voice
        else:
            wanted = (settings.session.voice, DEFAULT_VOICE)
            return next((voice for voice in wanted if voice in known), tts.default_voice)
        if voice not in known and selected.stands_in:
            return tts.default_voice
        if voice not in known:
            raise SettingsError(
                f"{place} voice: {voice!r} is none of the voices of the model {name!r}; some of "
                f"them: {', '.join(sorted(known)[:8])}"
            )
        return voice


def _check_rate(engine: Selected, from_rate: int, to_rate: int) -> None:
    """Raise SettingsError where there is no resampler; its filter is computed and kept."""
    try:
        Resampler(from_rate, to_rate)
    except (ValueError, AudioError) as exc:
        raise SettingsError(f"[engines.{engine.kind}.{engine.name}] {exc}") from exc
