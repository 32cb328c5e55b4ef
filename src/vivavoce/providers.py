"""Services by name: `stt = "groq"` is `stt:openai` with the address, model and key of Groq."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

PROVIDER_KINDS = ("stt", "llm", "tts")


class Provider(NamedTuple):
    """A service that speaks OpenAI's API."""

    base_url: str
    variable: str = ""
    """The environment variable of its key; "": it wants none."""
    url_variable: str = ""
    """The environment variable of its address."""
    options: Mapping[str, Any] = {}


GROQ = "https://api.groq.com/openai/v1"
ORPHEUS_VOICES = ["autumn", "diana", "hannah", "austin", "daniel", "troy"]
PROVIDERS: Mapping[str, Mapping[str, Provider]] = {
    "stt": {
        "groq": Provider(GROQ, "GROQ_API_KEY", options={"model": "whisper-large-v3"}),
        "whisper": Provider(
            "https://api.openai.com/v1",
            "WHISPER_API_KEY",
            "WHISPER_BASE_URL",
            options={"model": "whisper-1"},
        ),
    },
    "llm": {
        "groq": Provider(GROQ, "GROQ_API_KEY", options={"model": "llama-3.1-8b-instant"}),
        "grok": Provider("https://api.x.ai/v1", "XAI_API_KEY"),
        "cerebras": Provider("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
        "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
        "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
        "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        "google": Provider(
            "https://generativelanguage.googleapis.com/v1beta/openai", "GOOGLE_API_KEY"
        ),
        "ollama": Provider("http://127.0.0.1:11434/v1", url_variable="OLLAMA_BASE_URL"),
        "qwen": Provider(
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"
        ),
        "minimax": Provider("https://api.minimax.io/v1", "MINIMAX_API_KEY", "MINIMAX_BASE_URL"),
        "moondream": Provider("https://api.moondream.ai/v1", "MOONDREAM_API_KEY"),
        "openpipe": Provider("https://api.openpipe.ai/api/v1", "OPENPIPE_API_KEY"),
    },
    "tts": {
        "groq": Provider(
            GROQ,
            "GROQ_API_KEY",
            options={
                "model": "canopylabs/orpheus-v1-english",
                "response_format": "wav",
                "voices": ORPHEUS_VOICES,
            },
        ),
    },
}
"""The services, by kind of engine."""
KEY_VARIABLES: Mapping[tuple[str, str], str] = {
    ("stt", "realtime"): "OPENAI_API_KEY",
    ("stt", "deepgram"): "DEEPGRAM_API_KEY",
    ("stt", "assemblyai"): "ASSEMBLYAI_API_KEY",
    ("tts", "cartesia"): "CARTESIA_API_KEY",
    ("tts", "elevenlabs"): "ELEVENLABS_API_KEY",
}
"""The variables of engines for one service, which have its name."""


def add_providers(
    tree: dict[str, Any], environment: Mapping[str, str], installed: Mapping[str, list[str]]
) -> list[str]:
    """Put the options of every service that the settings name under the given ones.

    installed: the engines by kind, which come before a service of the same name. Returns the
    variables that were used.
    """
    used = []
    for kind, name in _named(tree):
        if variable := KEY_VARIABLES.get((kind, name)):
            if text := environment.get(variable):
                table = tree.setdefault("engines", {}).setdefault(kind, {}).setdefault(name, {})
                if "engine" not in table and "api_key" not in table:
                    table["api_key"] = text
                    used.append(variable)
            continue
        provider = PROVIDERS[kind].get(name)
        if provider is None or name in installed[kind]:
            continue
        tables = tree.setdefault("engines", {}).setdefault(kind, {})
        given = tables.get(name, {})
        if "engine" in given:
            continue
        defaults = {"engine": "openai", "base_url": provider.base_url, **provider.options}
        for option, variable in (
            ("api_key", provider.variable),
            ("base_url", provider.url_variable),
        ):
            if text := environment.get(variable):
                defaults[option] = text
                used.append(variable)
        tables[name] = defaults | given
    return list(dict.fromkeys(used))


def _named(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) of every engine that a model or a table of options names."""
    found: dict[tuple[str, str], None] = {}
    models, engines = tree.get("models"), tree.get("engines")
    for kind in PROVIDER_KINDS:
        for model in models.values() if isinstance(models, dict) else ():
            names = model.get(kind, ()) if isinstance(model, dict) else ()
            for name in [names] if isinstance(names, str) else names:
                found[kind, str(name)] = None
        tables = engines.get(kind) if isinstance(engines, dict) else None
        for name in tables if isinstance(tables, dict) else ():
            found[kind, name] = None
    yield from found
