"""The files of deploy/: proxies are run with real servers, what cannot be run here is checked."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.server import HOST, Server, scripted, serving
from tests.transports.webrtc.call_stage import Client
from tests.transports.webrtc.caller import Caller, until
from vivavoce.settings_sources import load_tree

DEPLOY = Path(__file__).parents[1] / "deploy"
WAIT_S = 40.0


def installed(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def running(*command: str, **environment: str) -> AsyncIterator[None]:
    """A program, ended at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
        assert process.returncode is None, f"{command[0]} has ended with {process.returncode}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until_served(address: str) -> None:
    async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://{address}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


@asynccontextmanager
async def behind_haproxy(folder: Path) -> AsyncIterator[tuple[str, Server, Server]]:
    """The address of HAProxy, and the two servers behind it; the first takes one session."""
    address = f"{HOST}:{free_port()}"
    text = (
        (DEPLOY / "haproxy.cfg")
        .read_text(encoding="utf-8")
        .replace("bind :8080", f"bind {address}")
    )
    file = folder / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    async with serving(scripted(server={"max_sessions": 1})) as one, serving() as other:
        gateways = {"GATEWAY_1": f"{HOST}:{one.port}", "GATEWAY_2": f"{HOST}:{other.port}"}
        async with running("haproxy", "-db", "-f", str(file), **gateways):
            await until_served(address)
            yield address, one, other


@installed("haproxy")
def test_haproxy_keeps_calls_and_cookies_on_their_server_and_passes_a_full_one_by(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with behind_haproxy(tmp_path) as (address, one, other), AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            client = Client()
            async with http.post(
                f"http://{address}/v1/realtime/calls",
                data=await client.offer(),
                headers={"Content-Type": "application/sdp"},
            ) as answer:
                assert answer.status == 201
                call_id = answer.headers["Location"].rpartition("/")[2]
                await client.accept(await answer.text())
            await client.until("session.created")
            for _ in range(4):  # each a client of its own, without a cookie
                async with (
                    aiohttp.ClientSession() as stranger,
                    stranger.ws_connect(f"ws://{address}/v1/realtime?call_id={call_id}") as socket,
                ):
                    await Caller(socket).until("session.created")
            for _ in range(4):  # of which the first server takes one at most
                own = await stack.enter_async_context(aiohttp.ClientSession())
                socket = await stack.enter_async_context(
                    own.ws_connect(f"ws://{address}/v1/realtime")
                )
                caller = Caller(socket)
                await caller.until("session.created")
                await caller.ask()
                assert await caller.answer() == ("completed", None)
            assert (len(one.sessions), len(one.sessions) + len(other.sessions)) == (1, 5)
            async with http.post(f"http://{address}/v1/realtime/calls/{call_id}/hangup") as answer:
                assert answer.status == 200
            async with http.get(f"http://{address}/metrics") as answer:
                assert answer.status == 404
            await client.connection.close()

    asyncio.run(main())


@installed("haproxy")
def test_haproxy_brings_a_browser_back_to_its_server(tmp_path: Path) -> None:
    async def main() -> None:
        jar = aiohttp.CookieJar(unsafe=True)  # of an address, not a name
        async with behind_haproxy(tmp_path) as (address, one, other), AsyncExitStack() as stack:
            browser = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
            served = []
            for _ in range(6):
                async with browser.ws_connect(f"ws://{address}/v1/realtime") as socket:
                    await Caller(socket).until("session.created")
                    served.append((len(one.sessions), len(other.sessions)))
                await until(lambda: not len(one.sessions) + len(other.sessions))
            assert len(set(served)) == 1

    asyncio.run(main())


@installed("nginx")
def test_nginx_passes_web_sockets_on_and_a_server_that_is_gone_by(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(serving())
            second = await stack.enter_async_context(serving())
            for shown, real in ((8080, port), (8081, first.port), (8082, second.port)):
                text = re.sub(rf"\b{shown}\b", str(real), text)
            text = text.replace("listen ", f"listen {HOST}:")
            file = tmp_path / "nginx.conf"
            file.write_text(text, encoding="utf-8")
            own = f"daemon off; pid {tmp_path}/pid; error_log stderr;"
            command = ("nginx", "-p", str(tmp_path), "-c", str(file), "-g", own)
            await stack.enter_async_context(running(*command))
            await until_served(f"{HOST}:{port}")
            http = await stack.enter_async_context(aiohttp.ClientSession())
            for _ in range(2):
                async with http.ws_connect(f"ws://{HOST}:{port}/v1/realtime") as socket:
                    caller = Caller(socket)
                    await caller.until("session.created")
                    await caller.ask()
                    assert await caller.answer() == ("completed", None)
                    busy = first if len(first.sessions) else second
                    assert len(first.sessions) + len(second.sessions) == 1
                    await busy.sessions.drain(0)  # this server takes no session any more
            assert {len(first.sessions), len(second.sessions)} == {0}

    asyncio.run(main())


@installed("nginx")
def test_nginx_passes_udp_by_port(tmp_path: Path) -> None:
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        pytest.skip("the module stream of nginx is not installed")
    text = (DEPLOY / "nginx-udp.conf").read_text(encoding="utf-8")
    file = tmp_path / "udp.conf"
    file.write_text(f"load_module {module};\nevents {{}}\n{text}", encoding="utf-8")
    own = f"pid {tmp_path}/pid; error_log stderr;"
    command = ("nginx", "-t", "-p", str(tmp_path), "-c", str(file), "-g", own)
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@installed("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    command = str(Path(sys.executable).with_name("vivavoce"))
    unit = tmp_path / "vivavoce.service"
    text = (DEPLOY / "vivavoce.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/vivavoce/bin/vivavoce", command), encoding="utf-8")
    checked = subprocess.run(
        ("systemd-analyze", "verify", str(unit)), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_compose_starts_gateways_with_valid_settings_and_mounts_files_that_exist() -> None:
    (compose,) = documents("compose.yaml")
    services = compose["services"]
    for name in ("gateway-1", "gateway-2"):
        environment = {
            key: str(value).replace("${VIVAVOCE_SECRET:?set it to a long random text}", "s")
            for key, value in services[name]["environment"].items()
        }
        environment = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", v) for key, v in environment.items()}
        settings, _ = load_tree({}, "", environment, {})
        grace = int(services[name]["stop_grace_period"].removesuffix("s"))
        assert settings.server.drain_seconds + 20 < grace
        ports = settings.webrtc.udp_ports
        assert settings.webrtc.port_range is not None
        assert services[name]["ports"] == [f"{ports}:{ports}/udp"]
    assert {"haproxy", "redis", "prometheus", "grafana"} < services.keys()
    mounts = [mount for one in services.values() for mount in one.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert [file for file in files if not (DEPLOY / file).is_file()] == []
    needed = [name for one in services.values() for name in one.get("depends_on", ())]
    assert set(needed) <= services.keys()


def test_prometheus_and_grafana_files_name_each_other() -> None:
    (prometheus,) = documents("prometheus.yml")
    assert [file for file in prometheus["rule_files"] if not (DEPLOY / file).is_file()] == []
    (alerts,) = documents("alerts.yml")
    assert alerts["groups"]
    (source,) = documents("grafana-source.yaml")
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    (folder,) = documents("grafana-folder.yaml")
    assert folder["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


def test_kubernetes_pods_have_valid_settings_and_time_to_drain() -> None:
    found = {one["kind"]: one for one in documents("kubernetes.yaml")}
    text = found["ConfigMap"]["data"]["vivavoce.toml"]
    settings, _ = load_tree(tomllib.loads(text), "vivavoce.toml", {}, {})
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pause + settings.server.drain_seconds + 20 < pod["terminationGracePeriodSeconds"]
    variables = {one["name"]: one.get("value", "redis://redis") for one in container["env"]}
    variables["VIVAVOCE_CLUSTER_ADDRESS"] = variables["VIVAVOCE_CLUSTER_ADDRESS"].replace(
        "$(POD_IP)", "10.0.0.1"
    )
    given, _ = load_tree({}, "", variables, {})
    assert given.cluster.address == "http://10.0.0.1:8080"
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = found["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert int(scaled["triggers"][0]["metadata"]["threshold"]) < settings.server.max_sessions


def test_kubernetes_manifests_follow_the_schemas_of_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is missing")
    for one in documents("kubernetes.yaml"):
        if one["apiVersion"].startswith("keda.sh/"):  # a resource of KEDA's
            continue
        validate.validate(one, validate.latest_version(), strict=True)


def test_ray_serve_application_has_a_deployment_of_each_engine() -> None:
    pytest.importorskip("ray.serve", reason="ray is not installed: pip install 'ray[serve]'")
    code = (
        "import ray_serve; from ray.serve._private.build_app import build_app; "
        "built = build_app(ray_serve.build(ray_serve.Options(max_replicas=2)), name='speech'); "
        "print(sorted(each.name for each in built.deployments))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=DEPLOY, capture_output=True, text=True, check=True
    )
    assert made.stdout.splitlines()[-1] == "['Gateway', 'stt', 'tts']"


def test_dockerfile_copies_what_exists_and_sets_what_is_known() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    stages = [line[3] for line in lines if line[0] == "FROM"]
    copied = {line[1].removeprefix("--from=") for line in lines if line[0] == "COPY"}
    assert {name for name in copied if name.startswith("build")} <= set(stages)
    sources = [
        source
        for line in lines
        if line[0] == "COPY" and not line[1].startswith("--from=")
        for source in line[1:-1]
    ]
    assert [one for one in sources if not (DEPLOY.parent / one).exists()] == []
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for source in sources} <= set(allowed)
    given = dict(re.findall(r"(VIVAVOCE_\w+)=(\S+)", text))
    given.pop("VIVAVOCE_SERVER_NO_AUTH", None)
    settings, _ = load_tree({}, "", given, {})
    assert settings.server.host == "0.0.0.0"
    assert stages[-1] == "cpu"
    assert "USER 10001" in text
