"""`vivavoce check`: its options, reports and exit status."""

import asyncio
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from tests.check.fake import fast_settings, faulty
from tests.check.faults import dropped, without
from tests.server import serving
from vivavoce.check.command import FAILED, PASSED, REFUSED, CheckOptions, check_server
from vivavoce.cli import cli
from vivavoce.limits.keys import hash_of
from vivavoce.secret import Secret

NOWHERE = "ws://127.0.0.1:9/v1/realtime"


def run(url: str, **options: object) -> tuple[int, str, str]:
    """The exit status, the report, and the notes."""
    out, notes = io.StringIO(), io.StringIO()
    given = CheckOptions(**{"fast": True, "timeout": 10.0, **options})  # type: ignore[arg-type]
    status = check_server(url, given, Console(file=out, width=200), Console(file=notes, width=200))
    return status, out.getvalue(), notes.getvalue()


def test_check_of_a_right_server_ends_with_status_0(tmp_path: Path) -> None:
    path = tmp_path / "check.xml"

    async def main() -> tuple[int, str, str]:
        async with serving(fast_settings()) as server:
            only = ("connect.*", "auth.*")
            return await asyncio.to_thread(run, server.http, only=only, form="junit", output=path)

    status, report, notes = asyncio.run(main())
    suite = ElementTree.parse(path).getroot()
    assert (status, report, notes.split()) == (PASSED, "", ["connect", "wrong_key"])
    assert [suite.get(each) for each in ("tests", "failures", "skipped")] == ["8", "0", "1"]
    assert {case.get("classname") for case in suite} == {"connect", "auth"}


def test_check_of_a_faulty_server_shows_the_check_and_the_event() -> None:
    async def main() -> list[tuple[int, str, str]]:
        async with (
            serving(fast_settings()) as server,
            faulty(server.ws, without("session.created", "session", "expires_at")) as url,
        ):
            return [
                await asyncio.to_thread(run, url, only=("connect.*",), form=form)
                for form in ("table", "json")
            ]

    (status, report, _), (status_of_json, json_report, _) = asyncio.run(main())
    found = json.loads(json_report)
    failed = [check for check in found["checks"] if check["outcome"] == "failed"]
    assert (status, status_of_json) == (FAILED, FAILED)
    assert "failed connect.expires_at" in report
    assert '{"type":"session.created"' in report
    assert "6 passed, 1 failed" in report
    assert (found["failed"], len(failed)) == (1, 1)
    assert failed[0]["rests_on"] == "protocol.md: Session settings"
    assert failed[0]["evidence"][0]["type"] == "session.created"


def test_check_of_a_server_without_events_is_refused() -> None:
    async def main() -> tuple[int, str, str]:
        async with (
            serving(fast_settings()) as server,
            faulty(server.ws, dropped("session.created")) as url,
        ):
            return await asyncio.to_thread(run, url, timeout=0.2)

    status, _, notes = asyncio.run(main())
    assert status == REFUSED
    assert "is not checked: no session.created came within 0.2 s" in notes


def test_check_of_a_server_that_refuses_the_key_names_the_option() -> None:
    async def main() -> tuple[int, str, str]:
        settings = msgspec.structs.replace(fast_settings(), keys={"ada": hash_of("vv-key")})
        async with serving(settings) as server:
            return await asyncio.to_thread(run, server.http, api_key=Secret())

    status, report, notes = asyncio.run(main())
    assert (status, report) == (REFUSED, "")
    assert "is not checked: Incorrect API key provided" in notes
    assert notes.endswith("This command takes it from --api-key or OPENAI_API_KEY.\n")


@pytest.mark.parametrize(
    ("url", "options", "sentence"),
    [
        (
            NOWHERE,
            {},
            "ws://127.0.0.1:9/v1/realtime is not checked: no server answers at "
            "ws://127.0.0.1:9/v1/realtime: connection refused; start one with `vivavoce serve`",
        ),
        (NOWHERE, {"only": ("no.such",)}, "--only no.such matches no check; see --list"),
        (NOWHERE, {"against": "openai"}, "a URL and --against openai exclude each other"),
        ("", {"against": "openai"}, "--against openai needs a key: set OPENAI_API_KEY"),
        (NOWHERE, {"timeout": 0.0}, "--timeout is a number of seconds above 0"),
        ("ftp://x", {}, "is not the address of a Realtime server"),
        (NOWHERE, {"speech": Path("/no/such.wav")}, "is not checked"),
    ],
)
def test_check_with_a_mistake_is_refused(
    url: str, options: dict[str, object], sentence: str
) -> None:
    status, report, notes = run(url, api_key=Secret(), **options)
    assert (status, report) == (REFUSED, "")
    assert sentence in notes


def test_check_list_shows_checks_and_sections(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli(["check", "--list", "--only", "tools.*"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "tools.choice_none" in shown
    assert "protocol.md" in shown


def test_check_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli(["check", "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code in (0, None)
    assert "vivavoce check ws://localhost:8080/v1/realtime" in shown
    assert "Exit status: 0 if no check failed" in shown
