"""`vivavoce models`: packs from a wheel, from a folder, and what can go wrong."""

import asyncio
import hashlib
import io
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from vivavoce.cli import packs as packs_command
from vivavoce.engines import packs, pulling
from vivavoce.engines.packs import Pack, PackFile, cache_folder, problem_of, weights_folder
from vivavoce.errors import EngineError

WEIGHTS = b"weights" * 100


def wheel_of(weights: bytes) -> bytes:
    made, info = io.BytesIO(), "vivavoce_test_pack-1.dist-info"
    files = {
        "x/a.bin": weights,
        f"{info}/LICENSE": b"free",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: vivavoce-test-pack\nVersion: 1\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without the time: always the same
    return made.getvalue()


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """A manifest with one small pack, and an empty cache."""
    wheel = hashlib.sha256(wheel_of(WEIGHTS)).hexdigest()
    file = PackFile("x/a.bin", len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    pack = Pack(
        engine="stt:x",
        description="x",
        version="1",
        licence="MIT",
        wheel="vivavoce-test-pack==1",
        wheel_platform="any",
        wheel_sha256=wheel,
        download_bytes=1000,
        licence_member="vivavoce_test_pack-1.dist-info/LICENSE",
        files={"a.bin": file},
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for module in (packs, packs_command, pulling):
        monkeypatch.setattr(module, "manifest", lambda: {"tiny": pack})
    return pack


def offer(folder: Path, wheel: bytes) -> Path:
    """Put the wheel of the pack where pip looks for it."""
    path = folder / "vivavoce_test_pack-1-py3-none-any.whl"
    path.write_bytes(wheel)
    return path


def pull() -> str:
    page = io.StringIO()
    asyncio.run(packs_command.pull(("tiny",), Console(file=page, width=200)))
    return page.getvalue()


def test_pulled_pack_is_checked_has_its_licence_and_is_not_pulled_again(tmp_path: Path) -> None:
    wheel = offer(tmp_path, wheel_of(WEIGHTS))
    assert pull().startswith("downloads 0 MB: tiny")
    assert problem_of("tiny") is None
    assert (weights_folder("tiny") / "LICENSE").read_text() == "free"
    wheel.unlink()
    assert "downloads" not in pull()
    assert [path.name for path in cache_folder().iterdir()] == ["tiny"]


def test_wheel_with_another_hash_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    offer(tmp_path, wheel_of(b"other"))
    with pytest.raises(EngineError, match=r"tiny: pip could not download .*HASHES"):
        pull()
    assert list(cache_folder().iterdir()) == []


def test_index_without_the_package_is_one_sentence_with_the_remedy() -> None:
    with pytest.raises(EngineError, match=r"pip could not download .*; check the network and"):
        pull()


def test_full_disk_is_refused_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(EngineError, match=r"needs 0 MB in .*, where 0 MB are free; delete"):
        pull()


def test_import_copies_a_folder_and_refuses_another_one(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    folder = tmp_path / "brought"
    folder.mkdir()
    with pytest.raises(EngineError, match="none of the known files is in it"):
        asyncio.run(packs_command.import_folder(folder, console))
    (folder / "a.bin").write_bytes(WEIGHTS[:-1])
    with pytest.raises(EngineError, match=r"a\.bin is damaged"):
        asyncio.run(packs_command.import_folder(folder, console))
    (folder / "a.bin").write_bytes(WEIGHTS)
    asyncio.run(packs_command.import_folder(folder, console))
    assert problem_of("tiny") is None


def test_file_that_was_found_right_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, wheel_of(WEIGHTS))
    pull()
    assert problem_of("tiny") is None
    file = weights_folder("tiny") / "a.bin"
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)
        assert problem_of("tiny") is None
    (file.with_name(".checked")).write_text("[")
    assert problem_of("tiny") is None
    file.write_bytes(bytes(len(WEIGHTS)))
    assert "a.bin is damaged" in str(problem_of("tiny"))


def test_removed_pack_is_gone_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    offer(tmp_path, wheel_of(WEIGHTS))
    pull()
    console = Console(file=io.StringIO())
    asyncio.run(packs_command.remove(("tiny",), console))
    with pytest.raises(EngineError, match="tiny is not installed"):
        asyncio.run(packs_command.remove(("tiny",), console))
    with pytest.raises(EngineError, match="there is no model 'big'; known: tiny"):
        asyncio.run(packs_command.remove(("big",), console))
    with pytest.raises(EngineError, match="vivavoce models pull tiny"):
        weights_folder("tiny")


def test_list_names_size_licence_and_state() -> None:
    page = io.StringIO()
    packs_command.list_packs(Console(file=page, width=200))
    assert "not installed" in page.getvalue()
    assert "MIT" in page.getvalue()


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 64 KB for the cache."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_fills_while_a_pack_is_unpacked_is_one_sentence_and_leaves_nothing(
    small_disk: Path, tmp_path: Path, tiny: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        with zipfile.ZipFile(io.BytesIO(wheel_of(WEIGHTS))) as small:
            for name in small.namelist():
                archive.writestr(zipfile.ZipInfo(name), small.read(name))
        archive.writestr("x/large.bin", bytes(200_000), zipfile.ZIP_DEFLATED)
    offer(tmp_path, made.getvalue())
    pack = msgspec.structs.replace(
        tiny,
        wheel_sha256=hashlib.sha256(made.getvalue()).hexdigest(),
        files={"large.bin": PackFile("x/large.bin", 1, "")},  # more than the manifest says
    )
    for module in (packs, packs_command, pulling):
        monkeypatch.setattr(module, "manifest", lambda: {"tiny": pack})
    with pytest.raises(EngineError) as full:
        pull()
    assert str(full.value) == (
        f"the model tiny cannot be stored in {cache_folder()}: No space left on device; set "
        f"XDG_CACHE_HOME to a folder that can be written and has room"
    )
    assert list(cache_folder().iterdir()) == []


def test_cancelled_pull_ends_its_process_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")

    async def main() -> None:
        asked, held = asyncio.Event(), asyncio.Event()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await held.wait()  # an index that never answers
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        task = asyncio.create_task(pulling.pull("tiny"))
        async with asyncio.timeout(60):
            await asked.wait()
            task.cancel()
            await asyncio.wait((task,))
            held.set()
            server.close()
            await server.wait_closed()
        assert task.cancelled()

    asyncio.run(main())
    assert list(cache_folder().iterdir()) == []
