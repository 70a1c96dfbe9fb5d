"""One live run a folder."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from geoloc.errors import UsageError
from geoloc.storage import Folder

NAME = "run.lock"
BEAT_S = 10
STALE_S = 60


@contextmanager
def held(folder: Folder) -> Iterator[None]:
    """Hold the folder for this process. Raises UsageError while another run that is alive holds it.

    A run on this machine is alive while its process is; one on another machine, while its heartbeat is younger than
    STALE_S. So a killed run can be taken over at once where it ran, and after a minute from elsewhere.
    """
    holder = _read(folder)
    if holder and _alive(holder):
        raise UsageError(
            f"OUTPUT {folder.uri}: a run on {holder['host']} (process {holder['pid']}) is writing there; "
            f"wait for it, or stop it and try again{'' if holder['host'] == socket.gethostname() else ' in a minute'}"
        )
    mine = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }
    stop = threading.Event()
    _beat(folder, mine)
    if (_read(folder) or mine)["token"] != mine["token"]:
        raise UsageError(f"OUTPUT {folder.uri}: another run took the folder at the same moment")

    def beat() -> None:
        while not stop.wait(BEAT_S):
            with suppress(Exception):  # a storage that answers again before STALE_S has done no harm
                _beat(folder, mine)

    thread = threading.Thread(target=beat, daemon=True, name="run-lock")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        folder.delete(NAME)


def _beat(folder: Folder, mine: dict) -> None:
    folder.write(NAME, json.dumps(mine | {"beat": time.time()}).encode())


def _read(folder: Folder) -> dict | None:
    try:
        return json.loads(folder.read(NAME))
    except (FileNotFoundError, ValueError):
        return None


def _alive(holder: dict) -> bool:
    if holder["host"] != socket.gethostname():
        return time.time() - holder["beat"] < STALE_S
    try:
        return abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) < 1
    except psutil.NoSuchProcess:
        return False
