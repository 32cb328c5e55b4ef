"""`vivavoce doctor` and `vivavoce init`."""

import asyncio
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.engines.openai.chat_server import ChatServer, gives
from tests.server import scripted, serving
from vivavoce import __version__
from vivavoce.cli.doctor import Diagnosis, Finding, diagnose
from vivavoce.cli.init import Answers, init, questions, settings_text
from vivavoce.limits.keys import hash_of
from vivavoce.settings import Settings
from vivavoce.settings_sources import load_tree, parse

KEY = "sk-of-the-service"


@pytest.fixture(autouse=True)
def _no_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def found(report: Diagnosis, part: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.part == part]


def with_service(base_url: str) -> Settings:
    tree = msgspec.to_builtins(scripted(server={"port": 0}), enc_hook=str)
    tree["models"]["default"]["llm"] = "openai"
    tree["engines"]["llm"] = {
        "openai": {"base_url": base_url, "api_key": KEY, "model": "m"},
    }
    return parse(tree)


def test_doctor_tells_its_own_server_from_another_on_the_port() -> None:
    async def main() -> None:
        async with serving(scripted()) as server:
            (port,) = found(await diagnose(scripted(server={"port": server.port})), "port")
            assert port.state == "ok"
            assert port.detail == f"vivavoce {__version__} listens here"
        foreign = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with foreign:
            number = foreign.sockets[0].getsockname()[1]
            (port,) = found(await diagnose(scripted(server={"port": number})), "port")
            assert port.state == "failed"
            assert f"port {number} cannot be used" in port.detail

    asyncio.run(main())


def test_doctor_finds_working_engines_and_a_free_port() -> None:
    report = asyncio.run(diagnose(scripted(server={"port": 0})))
    assert [each.name for each in found(report, "engines")][:2] == [
        "default vad:scripted",
        "default turn:scripted",
    ]
    assert "µs a window" in found(report, "speed")[0].detail
    assert found(report, "port")[0].detail == "free"
    assert "stt:moonshine" in {each.name for each in found(report, "packages")}
    assert tomllib.loads(report.recommendation.settings)["models"]["default"]["stt"] == "scripted"
    assert msgspec.json.decode(msgspec.json.encode(report), type=Diagnosis) == report


@pytest.mark.parametrize(
    ("status", "state", "detail"),
    [
        (200, "ok", "127.0.0.1: reached, and the key is accepted"),
        (401, "failed", "127.0.0.1: it refuses the key; set api_key in [engines.llm.openai]"),
        (404, "ok", "127.0.0.1: reached; it answers 404 to /models, so the key was not checked"),
    ],
)
def test_doctor_asks_each_service_whether_it_accepts_the_key(
    status: int, state: str, detail: str
) -> None:
    async def main() -> Diagnosis:
        async with ChatServer([gives(status, {"data": []})] * 4) as server:
            return await diagnose(with_service(server.base_url), speed=False)

    report = asyncio.run(main())
    (endpoint,) = found(report, "endpoints")
    assert (endpoint.name, endpoint.state, endpoint.detail) == ("llm:openai", state, detail)
    assert KEY not in msgspec.json.encode(report).decode()


def test_doctor_asks_each_server_of_a_pool() -> None:
    async def main() -> tuple[int, Diagnosis]:
        async with ChatServer([gives(200, {"data": []})] * 4) as server:
            urls: Any = [server.base_url, "http://127.0.0.1:9/v1"]
            return server.port, await diagnose(with_service(urls), speed=False)

    port, report = asyncio.run(main())
    assert {each.name: each.state for each in found(report, "endpoints")} == {
        f"llm:openai@127.0.0.1:{port}": "ok",
        "llm:openai@127.0.0.1:9": "failed",
    }


def test_doctor_reports_what_does_not_work_in_one_sentence_each(tmp_path: Path) -> None:
    tree = msgspec.to_builtins(scripted(server={"port": 0}), enc_hook=str)
    tree["models"]["default"] |= {"turn": "smart-turn", "llm": "openai"}
    tree["engines"]["llm"] = {"openai": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    tree["engines"]["turn"] = {"smart-turn": {"model": str(tmp_path)}}
    report = asyncio.run(diagnose(parse(tree), speed=False))
    failed = {each.name: each.detail for each in report.findings if each.state == "failed"}
    assert "no connection; check base_url" in failed["llm:openai"]
    assert "in place of smart-turn: [engines.turn.smart-turn]" in failed["default turn:words"]
    assert not report.works


@pytest.mark.parametrize(
    "answers",
    [
        Answers(),
        Answers(public=True, port=9000, llm="http://host/v1", model='a"b\\c', language="any"),
        Answers(llm="openai"),
    ],
)
def test_file_of_init_is_valid_and_says_what_was_answered(answers: Answers) -> None:
    tree = tomllib.loads(settings_text(answers, hash_of("k") if answers.public else ""))
    settings, _ = load_tree(tree, "vivavoce.toml", {}, {})
    assert settings.server.on_loopback != answers.public
    assert settings.server.port == answers.port
    assert bool(settings.keys) == answers.public
    options: Mapping[str, Any] = settings.engines.get("llm", {}).get("openai", {})
    assert options.get("model", "") == answers.model


def test_questions_are_asked_until_the_answer_is_valid() -> None:
    given = iter(["us", "all", "x", "70000", "81", "any", "gpt", "http://h/v1", "m"])
    assert questions(lambda _, __: next(given)) == Answers(True, 81, "http://h/v1", "m", "any")
    assert questions(lambda _, default: default) == Answers()


def test_init_without_a_terminal_takes_the_defaults_and_overwrites_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "voice.toml"
    init(output=path)
    written = path.read_text("utf-8")
    assert written == settings_text(Answers())
    path.write_text("mine", "utf-8")
    with pytest.raises(SystemExit) as ended:
        init(output=path, yes=True)
    assert ended.value.code == 2
    assert "exists and was left as it is; see --force" in capsys.readouterr().err
    assert path.read_text("utf-8") == "mine"
    init(output=path, force=True)
    assert path.read_text("utf-8") == written
    with pytest.raises(SystemExit):
        init(output=tmp_path / "nowhere" / "voice.toml")
    assert "cannot be written: No such file" in capsys.readouterr().err
