"""`vivavoce doctor`: what is installed, works and can be reached here, and how fast it is."""

import asyncio
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
import numpy as np
from cyclopts import Parameter
from rich.markup import escape

from vivavoce.api.public import HealthStatus
from vivavoce.audio.resample import resample
from vivavoce.cli.console import ConfigFile, out, read_settings
from vivavoce.configured import server_label
from vivavoce.engines import registry
from vivavoce.engines.base import STT, TTS, VAD, BaseEngine, residency_of
from vivavoce.engines.packs import cache_folder, manifest, problem_of
from vivavoce.errors import EngineError, SettingsError, VoiceError
from vivavoce.models import CANDIDATES, BuiltModels, Selected, built_models
from vivavoce.runtime.fallback import first_engine
from vivavoce.secret import Secret
from vivavoce.settings import KINDS, CascadeModel, RelayModel, Settings

State = Literal["ok", "missing", "failed"]
REACH_TIMEOUT_S = 5.0
MEASURE_TIMEOUT_S = 60.0
VAD_WINDOWS = 200
SENTENCE = "The weather was fine this morning, so we walked along the river to the old mill."
FAST = 0.8
"""Real-time factor: a stage that needs more is too slow for conversations."""
FASTER: Mapping[str, str] = {
    "stt": 'a service, such as stt = "groq", or another machine is faster',
    "tts": 'tts = "espeak" is faster, and so is a service, such as tts = "elevenlabs"',
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    part: str
    """packages, programs, models, engines, endpoints, port or speed."""
    name: str
    state: State
    """missing: not installed, and not needed by the settings. failed: the settings need it."""
    detail: str = ""


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration, and why."""

    settings: str
    """TOML."""
    reasons: list[str]


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report."""

    findings: list[Finding]
    recommendation: Recommendation

    @property
    def works(self) -> bool:
        return all(finding.state != "failed" for finding in self.findings)


def doctor(
    *,
    config: ConfigFile = None,
    json: bool = False,
    speed: Annotated[bool, Parameter(negative="--no-speed")] = True,
) -> None:
    """Check what is installed, downloaded and reachable here, and how fast it is.

    Ends with status 1 where something that the settings name does not work. Example:
    vivavoce doctor --json | jq .recommendation

    Parameters
    ----------
    config
        The settings file; ./vivavoce.toml or ./config.json if there is one.
    json
        Print JSON.
    speed
        Measure the speed of each stage on this machine; takes some seconds.
    """
    settings, _, _ = read_settings(config, {})
    report = asyncio.run(diagnose(settings, speed=speed))
    if json:
        out.print_json(msgspec.json.encode(report).decode())
    else:
        _print(report)
    sys.exit(0 if report.works else 1)


async def diagnose(settings: Settings, *, speed: bool = True) -> Diagnosis:
    """The report for these settings. Starts their engines, and stops them."""
    findings = [*_packages(), *_programs(), *await asyncio.to_thread(_packs)]
    speeds: dict[str, float] = {}
    chosen: tuple[Selected, ...] = ()
    server = msgspec.structs.replace(settings.server, strict=False)
    try:
        async with built_models(msgspec.structs.replace(settings, server=server)) as built:
            findings += _engines(settings, built)
            chosen = built.selected.get(built.catalog.default, ())
            if speed:
                findings += await _speeds(built, chosen, speeds)
    except SettingsError as exc:
        findings.append(Finding(part="engines", name="settings", state="failed", detail=str(exc)))
    findings += [await _reached(*each) for each in _endpoints(settings, chosen)]
    findings.append(await _port(settings))
    return Diagnosis(findings=findings, recommendation=_recommended(chosen, speeds))


def _packages() -> Iterator[Finding]:
    for kind in KINDS:
        for name in registry.names(kind):
            if name != "scripted":
                problem = registry.problem_of(kind, name) or ""
                state: State = "missing" if problem else "ok"
                yield Finding(part="packages", name=f"{kind}:{name}", state=state, detail=problem)


def _programs() -> Iterator[Finding]:
    for program, use in (("npm", "fetches the voices of kokoro-82m"), ("curl", "of the examples")):
        found = shutil.which(program)
        yield Finding(
            part="programs", name=program, state="ok" if found else "missing", detail=found or use
        )


def _packs() -> Iterator[Finding]:
    for name in manifest():
        problem = problem_of(name) or ""
        damaged = bool(problem) and (cache_folder() / name).is_dir()
        state: State = "failed" if damaged else "missing" if problem else "ok"
        yield Finding(part="models", name=name, state=state, detail=problem)


def _engines(settings: Settings, built: BuiltModels) -> Iterator[Finding]:
    """What serves each stage of each configured model."""
    for model, selected in built.selected.items():
        for engine in selected:
            yield Finding(
                part="engines",
                name=f"{model} {engine.kind}:{engine.name}",
                state="failed" if engine.stands_in else "ok",
                detail=engine.reason,
            )
    for name in built.catalog.relays:
        relay = settings.models[name]
        has_key = isinstance(relay, RelayModel) and bool(relay.api_key or relay.token_command)
        yield Finding(
            part="engines",
            name=f"{name} relay",
            state="ok" if has_key else "missing",
            detail="" if has_key else f"[models.{name}] api_key is not set",
        )


# --- endpoints


def _endpoints(
    settings: Settings, chosen: tuple[Selected, ...]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, address and headers of each service that the settings or `auto` have chosen."""
    named = {(each.kind, each.name): {**each.options} for each in chosen}
    for model in settings.models.values():
        if isinstance(model, CascadeModel):
            for kind, names in model.fallbacks.items():
                named |= {(kind, name): {} for name in names if (kind, name) not in named}
    for (kind, name), found in named.items():
        options = {**settings.engines.get(kind, {}).get(name, {}), **found}
        key = _revealed(options.get("api_key", ""))
        headers = {"Authorization": f"Bearer {key}", "api-key": key} if key else {}
        given = options.get("base_url", "")
        if isinstance(given, list):
            for each in given:
                yield f"{kind}:{name}@{server_label(each)}", _revealed(each), headers
            continue
        url = _revealed(given)
        if not url and key and options.get("engine", name) == "openai":
            url = "https://api.openai.com/v1"
        if url:
            yield f"{kind}:{name}", url, headers


def _revealed(value: Any) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


async def _reached(name: str, url: str, headers: Mapping[str, str]) -> Finding:
    """Whether the host is known, the connection is made, and the key is accepted."""
    host = urlsplit(url).hostname or ""
    if url.startswith("ws"):
        url = f"http{url.removeprefix('ws')}"

    def finding(state: State, detail: str) -> Finding:
        return Finding(part="endpoints", name=name, state=state, detail=f"{host}: {detail}")

    try:
        timeout = aiohttp.ClientTimeout(total=REACH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"{url.rstrip('/')}/models", headers=headers, allow_redirects=False) as got,
        ):
            status = got.status
    except aiohttp.ClientConnectorDNSError:
        return finding("failed", "no such host; check base_url and the network")
    except aiohttp.ClientSSLError:
        return finding("failed", "its TLS certificate is not accepted; check base_url")
    except (aiohttp.ClientError, OSError, ValueError):
        return finding("failed", "no connection; check base_url and whether the server runs")
    except TimeoutError:
        return finding("failed", f"no answer within {REACH_TIMEOUT_S:g} s")
    if status in (401, 403):
        what = "refuses the key" if headers else "wants a key"
        table = f"[engines.{name.partition('@')[0].replace(':', '.')}]"
        return finding("failed", f"it {what}; set api_key in {table}")
    if status == 200:
        return finding("ok", "reached, and the key is accepted" if headers else "reached")
    return finding("ok", f"reached; it answers {status} to /models, so the key was not checked")


async def _port(settings: Settings) -> Finding:
    """Whether the server could listen, or does so already."""
    server = settings.server
    name = f"{server.host}:{server.port}"
    try:
        with socket.create_server((server.host, server.port)):
            return Finding(part="port", name=name, state="ok", detail="free")
    except OSError as exc:
        scheme = "https" if server.tls_certificate else "http"
        if version := await _version_at(f"{scheme}://{name}/health"):
            detail = f"vivavoce {version} listens here"
            return Finding(part="port", name=name, state="ok", detail=detail)
        detail = (
            f"[server] port {server.port} cannot be used: {exc.strerror or exc}; choose another"
        )
        return Finding(part="port", name=name, state="failed", detail=detail)


async def _version_at(url: str) -> str:
    """The version of the server whose health is at the address; "" if it is none of ours."""
    try:
        timeout = aiohttp.ClientTimeout(total=REACH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(url, ssl=False, allow_redirects=False) as got,
        ):
            return msgspec.json.decode(await got.read(), type=HealthStatus).version
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
        return ""


# --- speed


async def _speeds(
    built: BuiltModels, chosen: tuple[Selected, ...], speeds: dict[str, float]
) -> list[Finding]:
    """Short runs of the local stages of the default model; `speeds` gets the real-time factors."""
    engines, cascade = built.engines, built.catalog.of("")
    stt, tts = first_engine(cascade.stt), first_engine(cascade.tts)
    vads = [engines[f"vad:{each.name}"] for each in chosen if each.kind == "vad"]
    found = [_vad_speed(cast(VAD, vad)) for vad in vads]
    try:
        async with asyncio.timeout(MEASURE_TIMEOUT_S):
            pcm, rate = b"", 0
            if residency_of(tts) is not None:
                pcm, rate, speeds["tts"] = await _spoken(tts)
                found.append(_speed("tts", speeds["tts"], "speaking"))
            if pcm and residency_of(stt) is not None:
                speeds["stt"] = await _heard(stt, pcm, rate)
                found.append(_speed("stt", speeds["stt"], "recognising"))
    except (VoiceError, TimeoutError) as exc:
        detail = str(exc) or f"no result within {MEASURE_TIMEOUT_S:g} s"
        found.append(Finding(part="speed", name="speech", state="failed", detail=detail))
    return found


def _vad_speed(vad: VAD) -> Finding:
    stream = vad.open()
    windows = np.zeros((1, vad.window_samples), np.float32)
    streams = np.array([stream], np.intp)
    vad.score(windows, streams)
    began = time.perf_counter()
    for _ in range(VAD_WINDOWS):
        vad.score(windows, streams)
    us = (time.perf_counter() - began) / VAD_WINDOWS * 1e6
    vad.close(stream)
    return Finding(part="speed", name="vad", state="ok", detail=f"{us:.0f} µs a window")


def _speed(stage: str, times: float, work: str) -> Finding:
    return Finding(
        part="speed", name=stage, state="ok", detail=f"{work} takes {times:.2f} times real time"
    )


async def _spoken(tts: TTS) -> tuple[bytes, int, float]:
    """Speech, its rate, and its real-time factor; the model is loaded before."""
    pcm = b""
    for text in ("Hello.", SENTENCE):
        if isinstance(tts, BaseEngine):
            await tts.load()
        pcm, began = b"", time.perf_counter()
        async for speech in tts.synthesize(
            text, voice=tts.default_voice, speed=1.0, language="en", instructions=""
        ):
            pcm += speech.audio
    seconds = len(pcm) / 2 / tts.sample_rate
    if not seconds:
        raise EngineError("the synthesiser makes no audio")
    return pcm, tts.sample_rate, (time.perf_counter() - began) / seconds


async def _heard(stt: STT, pcm: bytes, rate: int) -> float:
    """The real-time factor of recognition."""
    audio = resample(pcm, rate, stt.sample_rate)
    began = 0.0
    if isinstance(stt, BaseEngine):
        await stt.load()
    for _ in range(2):  # the first run is slower
        began = time.perf_counter()
        async for _result in stt.transcribe(_once(audio), language="en", prompt=""):
            pass
    return (time.perf_counter() - began) / (len(audio) / 2 / stt.sample_rate)


async def _once(audio: bytes) -> AsyncIterator[bytes]:
    yield audio


# --- what to do


def _recommended(chosen: tuple[Selected, ...], speeds: Mapping[str, float]) -> Recommendation:
    """The engines that work here and are fast enough, the best first."""
    lines, reasons = ["[models.default]"], []
    by_kind = {each.kind: each for each in chosen}
    for kind in ("stt", "tts"):
        name = by_kind[kind].name if kind in by_kind else CANDIDATES[kind][-1].engine
        times = speeds.get(kind)
        if times is not None and times > FAST:
            reasons.append(
                f"{kind}: {name} needs {times:.2f} times real time here, which is slow for "
                f"conversations; {FASTER[kind]}"
            )
        elif times is not None:
            reasons.append(f"{kind}: {name} is fast enough here, {times:.2f} times real time")
        lines.append(f'{kind} = "{name}"')
    llm = by_kind["llm"].name if "llm" in by_kind else "builtin"
    lines.append(f'llm = "{llm}"')
    if llm == "builtin":
        reasons.append(
            "llm: no language model is configured; set OPENAI_API_KEY, or run Ollama on this "
            "machine: auto finds it"
        )
    else:
        reasons.append(f"llm: {by_kind['llm'].reason or 'configured'}")
    return Recommendation(settings="\n".join(lines) + "\n", reasons=reasons)


def _print(report: Diagnosis) -> None:
    marks = {"ok": "[green]ok[/green]", "missing": "[dim]--[/dim]", "failed": "[red]!![/red]"}
    part = ""
    for finding in report.findings:
        if finding.part != part:
            part = finding.part
            out.print(f"[bold]{part}[/bold]")
        text = f"{finding.name}: {finding.detail}" if finding.detail else finding.name
        out.print(f"  {marks[finding.state]} {escape(text)}", highlight=False, soft_wrap=True)
    out.print("[bold]recommended[/bold]")
    for line in report.recommendation.settings.splitlines():
        out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for reason in report.recommendation.reasons:
        out.print(f"  # {escape(reason)}", highlight=False, soft_wrap=True)
