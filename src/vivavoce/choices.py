"""Which engine stands behind `auto`, and why."""

from dataclasses import dataclass
from importlib.util import find_spec

from vivavoce.engines.openai import discovery
from vivavoce.settings import Settings

OPENAI_MODEL = "gpt-5-mini"  # where a key is given and no model


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine by name, options that come on top of the operator's, and the reason."""

    name: str
    options: dict[str, object]
    reason: str


def choose_vad() -> Choice:
    """Silero where its weights are installed."""
    if find_spec("faster_whisper"):
        return Choice("silero", {}, "")
    return Choice("energy", {}, "by loudness: faster-whisper, which carries Silero, is missing")


def choose_clean() -> Choice:
    """WebRTC's audio processing where the package that carries it is installed."""
    if find_spec("livekit"):
        return Choice("webrtc", {}, "")
    return Choice("none", {}, "noise_reduction has no effect: livekit is missing")


async def choose_llm(settings: Settings, places: tuple[discovery.LocalServer, ...]) -> Choice:
    """What was configured; else a model server on this machine; else the built-in partner."""
    configured = settings.engines.get("llm", {}).get("openai", {})
    if configured:
        options: dict[str, object] = {}
        if not configured.get("model") and not configured.get("base_url"):
            options["model"] = OPENAI_MODEL
        return Choice("openai", options, "configured")
    found = await discovery.find_local_model(places, own_port=settings.server.port)
    if found:
        options = {"base_url": found.base_url, "model": found.model}
        return Choice("openai", options, f"{found.server} answers at {found.base_url}")
    return Choice("builtin", {}, "no model is configured and none answers on this machine")
