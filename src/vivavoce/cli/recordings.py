"""`vivavoce replay` and `vivavoce recordings`."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp
import msgspec
from cyclopts import App, Parameter
from rich.table import Table

from vivavoce.cli.console import err, give_up, out
from vivavoce.errors import SettingsError
from vivavoce.replay.command import ReplayOptions, replay_call
from vivavoce.secret import Secret
from vivavoce.talk.client import connect_error

TIMEOUT_S = 30.0
DEFAULT_URL = "http://localhost:8080"
REPLAY_EPILOGUE = """\
For example, whether a call still does what it did, what a shorter silence would have done, and a
test of its fault:

    vivavoce replay recordings/20260102T101500-sess_1.jsonl

    vivavoce replay call.jsonl --settings changed.toml

    vivavoce replay call.jsonl --to-test tests/test_silent_answer.py

Exit status: 0 the effects are the same, 1 they are not, 2 the call cannot be replayed."""
RECORDINGS_EPILOGUE = """\
For example, the calls that a server has in memory, and one of them in a file:

    vivavoce recordings

    vivavoce recordings sess_3f1c --output call.jsonl

Exit status: 0 done, 2 the server cannot be reached, refuses the key, or has no such call."""

replay = App(name="replay", help_format="plaintext", help_epilogue=REPLAY_EPILOGUE)
recordings = App(name="recordings", help_format="plaintext", help_epilogue=RECORDINGS_EPILOGUE)
ApiKey = Annotated[Secret, Parameter(env_var="VIVAVOCE_API_KEY", show_env_var=False)]


@replay.default
def _replay(call: Path, /, *, options: ReplayOptions = ReplayOptions()) -> None:
    """Run a recorded call again on a virtual clock, and compare.

    Parameters
    ----------
    call
        A recording, as the recorder writes it or `vivavoce recordings` fetches it.
    """
    sys.exit(replay_call(call, options, out, err))


@recordings.default
def _recordings(
    call: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    url: str = DEFAULT_URL,
    api_key: ApiKey = Secret(),
    output: Path | None = None,
) -> None:
    """List the calls that a server has recorded, or fetch one.

    Parameters
    ----------
    call
        The id of a call, or its beginning; without it they are listed.
    url
        The address of the server.
    api_key
        An admin key, where the server needs one; by default the one in VIVAVOCE_API_KEY.
    output
        The file for the call; by default the standard output.
    """
    try:
        asyncio.run(_fetch(url, api_key, call, output))
    except aiohttp.ClientConnectorError as exc:
        give_up(SettingsError(connect_error(url, exc)))
    except (aiohttp.ClientError, OSError, TimeoutError, SettingsError) as exc:
        give_up(SettingsError(f"{url}: {exc or 'timed out'}"))


async def _fetch(url: str, api_key: Secret, call: str, output: Path | None) -> None:
    scheme, netloc = urlsplit(url if "://" in url else f"http://{url}")[:2]
    base = urlunsplit((scheme.replace("ws", "http"), netloc, "/v1/admin/recordings", "", ""))
    headers = {"Authorization": f"Bearer {api_key.reveal()}"} if api_key else {}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:
        found: list[dict[str, Any]] = msgspec.json.decode(await _get(http, base))["data"]
        if not call:
            _list(found)
            return
        named = [one["id"] for one in found if one["id"].startswith(call)]
        if len(named) != 1:
            what = "several calls begin with" if named else "the recorder has no call"
            raise SettingsError(f"{what} {call!r}")
        data = await _get(http, f"{base}/{quote(named[0], safe='')}")
    if output is None:
        out.file.write(data.decode())
    else:
        await asyncio.to_thread(output.write_bytes, data)
        err.print(f"written: {output}", highlight=False, soft_wrap=True)


async def _get(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        data = await answer.read()
        if answer.status != 200:
            raise SettingsError(_refusal(answer.status, data))
        return data


def _refusal(status: int, data: bytes) -> str:
    """What a server answered in place of a recording, and the remedy for a wrong key."""
    if status in (401, 403):
        return (
            f"the server does not accept the key ({status}); give an admin key with --api-key or "
            "in VIVAVOCE_API_KEY, made by: vivavoce keys add NAME --admin"
        )
    try:
        text = msgspec.json.decode(data)["error"]["message"]
    except (msgspec.DecodeError, LookupError, TypeError):
        text = data.decode(errors="replace")[:300]
    return f"answered with status {status}: {text}"


def _list(calls: list[dict[str, Any]]) -> None:
    table = Table("call", "began", "seconds", "state", "bytes", "faults", box=None)
    for call in calls:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(call["began_at"]))
        faults = ", ".join(sorted({fault["kind"] for fault in call["faults"]}))
        state = "live" if call["live"] else "ended"
        table.add_row(
            call["id"], began, f"{call['seconds']:.1f}", state, f"{call['bytes']}", faults
        )
    out.print(table)
