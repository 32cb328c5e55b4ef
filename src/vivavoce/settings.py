"""The settings of a server. Most tables are declared next to the code that uses them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from vivavoce.api.provider_signatures import TelephonySettings
from vivavoce.limits.connections import ConnectionLimits, is_loopback
from vivavoce.limits.prices import ModelPrice
from vivavoce.protocol.session import Milliseconds, Threshold
from vivavoce.runtime.choice import DEFAULT
from vivavoce.runtime.cluster import ClusterSettings
from vivavoce.runtime.fallback import FallbackSettings
from vivavoce.runtime.moderation import ModerationSettings
from vivavoce.runtime.resume import ResumeSettings
from vivavoce.runtime.tools import ToolSettings
from vivavoce.runtime.upstream import NO_FALLBACK
from vivavoce.runtime.voice_rules import VoiceSettings
from vivavoce.secret import Secret, conceal
from vivavoce.session.endpointing import TurnSettings
from vivavoce.session.interruption import InterruptionSettings
from vivavoce.session.limits import SecondsOrZero, SessionLimits
from vivavoce.session.policy import Policy
from vivavoce.session.speaker_gate import SpeakerGateSettings
from vivavoce.store.base import StoreSettings
from vivavoce.telemetry.recorder import RecorderSettings
from vivavoce.telemetry.spend import SpendSettings
from vivavoce.transports.webrtc.settings import WebRTCSettings

# engine options with these names are masked
_SECRET = re.compile(r"(?i)(?:^|_)(?:key|token|password|secret|authorization)$|^headers$")
_ADDRESS_WITH_SECRET = re.compile(r"://[^/]*@|://.*\?")
Kind: TypeAlias = Literal["vad", "turn", "stt", "llm", "tts", "clean", "speaker"]
KINDS: tuple[Kind, ...] = get_args(Kind)
AUTO = "auto"
OneOrMore: TypeAlias = str | Annotated[tuple[str, ...], Meta(min_length=1)]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]


class ServerSettings(ConnectionLimits, frozen=True, forbid_unknown_fields=True):
    """[server]: the address, who may connect, and the limits of connections."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0: any free port; the banner shows which."""
    workers: Annotated[int, Meta(ge=1, le=255)] | Literal["auto"] = 1
    """Processes that serve together on the port; auto: one for each core. A byte of some ids."""
    log_level: LogLevel = "info"
    log_format: Literal["text", "json"] = "text"
    """json: one object a line, with the ids of the session, response and item that it names."""
    tls_certificate: str = ""
    """A PEM file. With `tls_key` the server speaks https and wss."""
    tls_key: str = ""
    max_sessions: Annotated[int, Meta(ge=1)] = 1000
    on_hangup: Literal["auto", "reload", "drain"] = "auto"
    """What SIGHUP does: read the settings again for new sessions, or end as SIGTERM does. auto:
    end where the server was started from a terminal, which sends it when it is closed."""
    drain_seconds: SecondsOrZero = 10.0
    """At shutdown, the time in which turns that are spoken and answers under way may end."""
    no_auth: bool = False
    """Allow unauthenticated access on a public address."""
    max_upload_mb: Annotated[int, Meta(ge=1)] = 25
    """The body of one HTTP request, such as an audio file."""
    hosts: tuple[str, ...] = ()
    """Names in `Host` to which a server without keys answers, besides the loopback names."""
    origins: tuple[str, ...] = ()
    """Web pages of other origins that may use it: https://app.example.com; "*" is all of them."""
    watch: Literal["state", "captions"] = "state"
    """What admins who watch a session see: what it is doing, or what is said, too. Those who talk
    should know."""
    unload_seconds: SecondsOrZero = 900.0
    """An engine that was loaded for a client is given back when it was unused for so long; 0: it
    stays."""
    preload: tuple[str, ...] = ()
    """Names of models, as clients give them, that are loaded at start and not at their first
    use."""
    use: Literal["any", "commercial"] = "any"
    """commercial: models whose licence forbids that are not used."""
    strict: bool = False
    """Refuse to start where an engine that the settings name cannot be used, in place of starting
    with another."""
    secret: str = ""
    """Signs short-lived keys. Empty: a random one, so that they are valid in this process alone."""

    def __post_init__(self) -> None:
        conceal(self, "secret")

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


class SessionSettings(SessionLimits, frozen=True, forbid_unknown_fields=True):
    """[session]: what every conversation begins with, and its limits."""

    instructions: str = (
        "You are a friendly voice assistant. Answer in one to three short sentences that are "
        "easy to say aloud, without lists or markup."
    )
    voice: str = ""
    """A voice of the default model. Empty: marin, or the engine's default where it has no marin."""
    silence_duration_ms: Milliseconds = 500
    """The silence that ends a turn, where the client sets none; so the following three."""
    prefix_padding_ms: Milliseconds = 300
    vad_threshold: Threshold = 0.5
    allow_interruptions: bool = True
    """Whether speech interrupts an answer."""
    idle_prompt_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    """After so long a silence the model is asked for an answer (`idle_timeout_ms`); 0: never."""
    lock_voice: bool = False
    failure_errors: bool = False


class CascadeModel(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cascade", tag_field="type"
):
    """[models.NAME]: a model that consists of engines."""

    vad: str = AUTO
    turn: str = AUTO
    stt: OneOrMore = AUTO
    """Of several the first that works is used, as of `llm` and `tts`."""
    llm: OneOrMore = AUTO
    tts: OneOrMore = AUTO
    clean: str = AUTO
    speaker: str = AUTO
    """Tells speakers apart; loaded when a client asks for that. none: nothing does."""
    voice: str = ""
    """A voice of `tts`. Empty: that of [session], or the engine's default."""
    policy: str = ""
    """A policy of [policies.NAME], which limits what clients may do. Empty: none."""

    @property
    def engines(self) -> dict[Kind, str]:
        """The name of the engine of each kind, of several the first."""
        return {
            "vad": self.vad,
            "turn": self.turn,
            "stt": _names(self.stt)[0],
            "llm": _names(self.llm)[0],
            "tts": _names(self.tts)[0],
            "clean": self.clean,
            "speaker": self.speaker,
        }

    @property
    def fallbacks(self) -> dict[Kind, tuple[str, ...]]:
        """The names of the engines that take over where the first fails."""
        return {
            "stt": _names(self.stt)[1:],
            "llm": _names(self.llm)[1:],
            "tts": _names(self.tts)[1:],
        }


def _names(engines: OneOrMore) -> tuple[str, ...]:
    return (engines,) if isinstance(engines, str) else engines


class RelayModel(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="relay", tag_field="type"
):
    """[models.NAME] with type = "relay": another Realtime server."""

    upstream: Annotated[str, Meta(pattern=r"^(openai|xai|azure|wss?://[^@?]+)$")]
    """Whose server: openai, azure, xai, or an address, wss://voice.example/v1/realtime."""
    api_key: str = ""
    """A Secret once the struct is made."""
    token_command: tuple[str, ...] = ()
    """A command that prints a bearer token, run for each connection; in place of the key."""
    resource: str = ""
    """With `azure`: the name of the resource, the first part of its host name."""
    model: str = ""
    """The model requested there. Empty: the name that the client gave."""
    voice: str = ""
    """The voice requested if the client sets none. Empty: marin."""
    fallback: str = ""
    """A cascade model that continues the conversation when the other server fails; none: the
    session ends."""
    policy: str = ""
    """A policy of [policies.NAME], which limits what clients may do. Empty: none."""
    media: Literal["here", "direct"] = "here"
    """Where the media of WebRTC calls goes: through this server, or direct between the client and
    the other server."""

    def __post_init__(self) -> None:
        if self.media == "direct" and self.upstream == "xai":
            raise ValueError('media = "direct" needs WebRTC, which xai does not have: leave it out')
        if bool(self.resource) != (self.upstream == "azure"):
            raise ValueError('resource names the Azure resource: set it with upstream = "azure"')
        if not re.fullmatch(r"[A-Za-z0-9-]*", self.resource):
            raise ValueError("resource is a name such as my-voices, without dots")
        if self.api_key and self.token_command:
            raise ValueError("api_key and token_command exclude each other: set one of them")
        conceal(self, "api_key")


ALIASES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-realtime-whisper"),
            "gpt-4o-transcribe-diarize",
        ),
        (DEFAULT,),
    ),
    **dict.fromkeys(("tts-1", "tts-1-hd", "gpt-4o-mini-tts"), (DEFAULT,)),
    **dict.fromkeys(("gpt-realtime", "gpt-4o-realtime-preview"), (DEFAULT,)),
    "Systran/faster-distil-whisper-small.en": ("whisper-base", "whisper-tiny.en", DEFAULT),
    "speaches-ai/Kokoro-82M-v1.0-ONNX": ("kokoro-82m", DEFAULT),
    "af_heart": ("heart", "marin", DEFAULT),
}
"""The default names of OpenAI's clients, and of speaches', which stand for an installed pack."""


ModelSettings: TypeAlias = CascadeModel | RelayModel


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    [engines.KIND.NAME] holds the options of an engine; with `engine = "…"` in it, NAME is a second
    set of options for that engine.
    """

    server: ServerSettings = ServerSettings()
    session: SessionSettings = SessionSettings()
    webrtc: WebRTCSettings = WebRTCSettings()
    telephony: TelephonySettings = TelephonySettings()
    turns: TurnSettings = TurnSettings()
    models: dict[str, ModelSettings] = msgspec.field(
        default_factory=lambda: {"default": CascadeModel()}
    )
    default_model: str = "default"
    interruption: InterruptionSettings = InterruptionSettings()
    speaker_gate: SpeakerGateSettings = SpeakerGateSettings()
    fallback: FallbackSettings = FallbackSettings()
    store: StoreSettings = StoreSettings()
    cluster: ClusterSettings = ClusterSettings()
    resume: ResumeSettings = ResumeSettings()
    recorder: RecorderSettings = RecorderSettings()
    policies: dict[str, Policy] = {}
    tools: dict[str, ToolSettings] = {}
    moderation: dict[str, ModerationSettings] = {}
    prices: dict[str, ModelPrice] = {}
    spend: SpendSettings = SpendSettings()
    voices: VoiceSettings = VoiceSettings()
    aliases: dict[str, OneOrMore] = {}
    """[aliases]: what a client's name of a model or a voice stands for; on top of ALIASES."""
    keys: dict[str, str] = {}
    """[keys]: names of API keys, and their hashes as `vivavoce keys new` prints them."""
    engines: dict[Kind, dict[str, dict[str, Any]]] = {}

    def __post_init__(self) -> None:
        if self.default_model not in self.models:
            raise ValueError(
                f"default_model {self.default_model!r} is none of the models: "
                f"{', '.join(self.models)}; say which one it is"
            )
        cascades = [name for name, m in self.models.items() if isinstance(m, CascadeModel)]
        for name, model in self.models.items():
            if isinstance(model, RelayModel) and model.fallback not in ("", NO_FALLBACK, *cascades):
                raise ValueError(
                    f"[models.{name}] fallback {model.fallback!r} is none of the cascade models: "
                    f"{', '.join(cascades) or 'none is configured'}"
                )
        for name, model in self.models.items():
            if model.policy and model.policy not in self.policies:
                raise ValueError(
                    f"[models.{name}] policy {model.policy!r} is none of the policies: "
                    f"{', '.join(self.policies) or 'there is no table [policies.NAME]'}"
                )
        for name, policy in self.policies.items():
            if missing := next((tool for tool in policy.tools if tool not in self.tools), None):
                raise ValueError(
                    f"[policies.{name}] tools: there is no table [tools.{missing}]; add one"
                )
            if policy.moderation and policy.moderation not in self.moderation:
                raise ValueError(
                    f"[policies.{name}] moderation: there is no table "
                    f"[moderation.{policy.moderation}]; add one"
                )
        for named in self.engines.values():
            for options in named.values():
                options.update({name: _hidden(name, value) for name, value in options.items()})


def aliases_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The table of the settings on top of ALIASES."""
    return {**ALIASES, **{name: _names(given) for name, given in settings.aliases.items()}}


def _hidden(name: str, value: Any) -> Any:
    """An option, wrapped where it is a secret."""
    if isinstance(value, str) and (_SECRET.search(name) or _ADDRESS_WITH_SECRET.search(value)):
        return Secret(value)
    if isinstance(value, dict):
        inside = name if _SECRET.search(name) else ""
        return {key: _hidden(inside or key, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_hidden(name, each) for each in value]
    return value
