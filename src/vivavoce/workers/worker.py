"""The main function of a worker: one of several processes that serve on one port.

It is started by workers/supervisor.py, which writes an order into a pipe and holds the other end
open for as long as it lives. When the pipe is closed the supervisor is gone, and the worker ends.
"""

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import msgspec

from vivavoce.starting import heavy_imports

with heavy_imports():
    from vivavoce import app
from vivavoce.engines.host import WorkerHost
from vivavoce.errors import SettingsError
from vivavoce.server import run_loop
from vivavoce.settings import Settings
from vivavoce.settings_sources import FILE, load, load_tree
from vivavoce.telemetry.logs import log_to_stderr
from vivavoce.voxray_config import find, read
from vivavoce.workers.messages import WorkerOrder, WorkerPlace, hub_socket, read_order

log = logging.getLogger(__name__)

ORPHAN_TIMEOUT_S = 15.0
"""For a worker to close its sessions when its supervisor is gone; then it is ended by force."""
EXIT_SETTINGS = 2


def main(pipe: int) -> None:
    """Serve until a signal, or until the supervisor is gone. pipe: where the order is read."""
    try:
        order = read_order(pipe)
    except EOFError:
        return
    threading.Thread(target=_end_with_the_supervisor, args=(pipe,), daemon=True).start()
    sockets = tuple(socket.socket(fileno=number) for number in order.descriptors)
    place = WorkerPlace(order.index, order.count, order.folder, sockets)
    WorkerHost.hub = hub_socket(order.folder)
    try:
        settings = read_settings(order)
        log_to_stderr(settings.server.log_level, settings.server.log_format, place.name)
        run_loop(app.serve(settings, lambda *_: None, lambda: read_settings(order), place))
    except SettingsError as exc:
        log.error("%s", exc)
        raise SystemExit(EXIT_SETTINGS) from exc


def read_settings(order: WorkerOrder) -> Settings:
    """As the command reads them. Raises SettingsError."""
    config = None if order.config is None else Path(order.config)
    path = find(config, os.environ, Path(FILE))
    if path is None:
        settings, _ = load(config, os.environ, order.flags)
    else:
        tree = read(path, os.environ).tree
        settings, _ = load_tree(tree, str(path), os.environ, order.flags)
    secret = settings.server.secret or order.secret
    server = msgspec.structs.replace(settings.server, secret=secret)
    return msgspec.structs.replace(settings, server=server)


def _end_with_the_supervisor(pipe: int) -> None:
    """Wait until the pipe is closed; then end, at once and in any case within ORPHAN_TIMEOUT_S."""
    while os.read(pipe, 1):
        pass
    for _ in range(2):  # the second signal does not wait for answers in progress
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
    time.sleep(ORPHAN_TIMEOUT_S)
    os._exit(1)
