"""`vivavoce init`: asks a few questions and writes a commented settings file."""

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vivavoce.cli.console import err, give_up, out
from vivavoce.errors import SettingsError
from vivavoce.limits.keys import KEY_BYTES, hash_of, key_of
from vivavoce.settings_sources import FILE

Ask = Callable[[str, str], str]
"""Gets a question and its default; returns the answer."""
MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to the questions."""

    public: bool = False
    """Other machines may connect."""
    port: int = 8080
    llm: str = "auto"
    """auto, openai, or the address of a server that speaks OpenAI's API."""
    model: str = ""
    """The language model at that address."""
    language: str = "en"


def init(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])] = Path(FILE),
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Ask a few questions and write a commented settings file.

    Enter takes the default. Without a terminal, and with --yes, nothing is asked. Example:
    vivavoce init --yes -o vivavoce.toml && vivavoce serve --config vivavoce.toml

    Parameters
    ----------
    output
        The file to write.
    yes
        Take all defaults.
    force
        Overwrite the file without asking.
    """
    asks = not yes and sys.stdin.isatty()
    try:
        if output.exists() and not force and not (asks and _may_overwrite(output)):
            raise SettingsError(f"{output} exists and was left as it is; see --force")
        answers = questions(_asked) if asks else Answers()
        key = key_of(secrets.token_bytes(KEY_BYTES)) if answers.public else None
        output.write_text(settings_text(answers, hash_of(key.reveal()) if key else ""), "utf-8")
    except SettingsError as exc:
        give_up(exc)
    except (EOFError, KeyboardInterrupt):
        give_up(SettingsError("nothing was written"))
    except OSError as exc:
        give_up(SettingsError(f"{output} cannot be written: {exc.strerror}"))
    err.print(f"{output} is written; start with: vivavoce serve --config {output}", soft_wrap=True)
    if key is not None:
        err.print("The API key of your clients; it is shown only here:", soft_wrap=True)
        out.print(key.reveal(), highlight=False, soft_wrap=True)


def _asked(question: str, default: str) -> str:
    return input(f"{question} [{default}] ").strip().lower() or default


def _may_overwrite(output: Path) -> bool:
    return _asked(f"{output} exists. Overwrite it? (y/n)", "n") in ("y", "yes")


def questions(ask: Ask) -> Answers:
    """Ask until each answer is valid."""
    public = _choice(ask, "Who connects: only this machine (me), or others too (all)?", "me", "all")
    port = ask("Which port?", "8080")
    while not (port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT):
        port = ask(f"A port is a number from 1 to {MAX_PORT}. Which one?", "8080")
    language = _choice(ask, "Do people speak English (en) or other languages (any)?", "en", "any")
    llm = ask("Which language model: auto, openai, or an address such as http://host/v1?", "auto")
    while llm not in ("auto", "openai") and not llm.startswith(("http://", "https://")):
        llm = ask("Answer auto, openai, or an address that begins with http:// or https://", "auto")
    model = "" if llm == "auto" else ask("Its model, empty for the default of the server?", "")
    return Answers(public == "all", int(port), llm, model, language)


def _choice(ask: Ask, question: str, *known: str) -> str:
    while (answer := ask(question, known[0])) not in known:
        question = f"Answer {' or '.join(known)}."
    return answer


def settings_text(answers: Answers, key_hash: str = "") -> str:
    """The file. key_hash: of the key that clients send, if other machines connect."""
    host = "0.0.0.0" if answers.public else "127.0.0.1"
    stt = "whisper" if answers.language == "any" else "auto"
    lines = [
        "# Settings of Vivavoce. All of them are described in docs/settings.md.",
        "",
        "[server]",
        "# 127.0.0.1: this machine alone; 0.0.0.0: every machine that reaches this one.",
        f'host = "{host}"',
        f"port = {answers.port}",
        "# true: refuse to start where an engine below cannot be used.",
        "strict = false",
        "",
        "[models.default]",
        "# auto takes the best that is installed; vivavoce doctor shows what that is.",
        "# whisper, for 99 languages: pip install 'vivavoce[whisper]'; vivavoce models pull",
        "# whisper-base",
        f'stt = "{stt}"',
        'tts = "auto"',
        "# auto finds a model server on this machine, such as Ollama, or OPENAI_API_KEY.",
        f'llm = "{"auto" if answers.llm == "auto" else "openai"}"',
    ]
    if answers.llm != "auto":
        lines += ["", "[engines.llm.openai]", "# The key comes from OPENAI_API_KEY."]
        if answers.llm != "openai":
            lines.append(f"base_url = {_quoted(answers.llm)}")
        if answers.model:
            lines.append(f"model = {_quoted(answers.model)}")
    if key_hash:
        lines += [
            "",
            "[keys]",
            "# Hashes of API keys; vivavoce keys new NAME makes more.",
            f'first = "{key_hash}"',
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
