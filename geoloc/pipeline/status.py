"""How far a run is: told on storage while it works, and read there by whoever asks. Needs no Ray."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import botocore.exceptions
import tyro

from geoloc.errors import UsageError
from geoloc.pipeline.lease import holder_of
from geoloc.pipeline.run import SUCCESS
from geoloc.storage import Folder, S3Options, describe
from geoloc.threads import beside

log = logging.getLogger("geoloc")

STATUS = "status.json"
"""Of a run's folder, while it works; gone when it has ended by itself."""
TELL_S = 10
AGAIN = "the same command goes on from there"


@contextmanager
def told(folder: Folder, phase: str, read: Callable[[], dict] = dict) -> Iterator[None]:
    """Meanwhile the folder says so, and every TELL_S what ``read`` gives then."""

    def tell(stop: threading.Event) -> None:
        while True:
            with suppress(Exception):  # it is for those who look on: the work goes on without it
                folder.write(STATUS, json.dumps({"phase": phase} | read()).encode(), durable=False)
            if stop.wait(TELL_S):
                return

    with beside(tell, "status"):
        yield
    folder.delete(STATUS)


@dataclass(frozen=True)
class StatusOptions:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder that geotag_archive.py writes to, s3:// or local."""
    json: bool = False
    """Print one JSON object, for programs."""
    s3: S3Options = field(default_factory=S3Options)


def print_status(options: StatusOptions) -> int:
    """Returns the exit status. Raises UsageError where there is no run."""
    found = status_of(Folder(options.run, options.s3))
    print(json.dumps(found) if options.json else "\n".join(describe_status(found)))
    return 0


def status_of(folder: Folder) -> dict:
    """``state``: running, stopped (before its end), incomplete (at its end some photos had no result), or finished; ``host``
    that it runs on; ``phase``, and while photos are located how many of ``to_do`` are ``done``, by ``statuses``,
    ``photos_per_s``, ``seconds_left`` and the same of its ``lanes``; of one that ended, ``statuses`` of all its photos and when it ``finished``.

    Whether a run on another machine lives is seen by watching it for some seconds. Raises UsageError where there is no run.
    """
    record, progress = _json(folder, "run.json"), _json(folder, STATUS)
    if record is None and progress is None:
        raise UsageError(f"RUN {folder.uri}: has no run.json; give the folder that geotag_archive.py writes to")
    record = record or {}
    if host := holder_of(folder):
        return {"state": "running", "host": host} | (progress or {})
    if progress is not None:
        return {"state": "stopped"} | progress
    ended = {"finished": record.get("finished"), "statuses": record.get("counts", {}), "missing": record.get("missing")}
    return {"state": "finished" if folder.exists(SUCCESS) else "incomplete" if ended["finished"] else "stopped"} | ended


def describe_status(found: dict) -> list[str]:
    """For people."""
    state, statuses = found["state"], Counter(found.get("statuses") or {})
    counts = ", ".join(f"{count:,} {name}" for name, count in statuses.most_common())
    if state in ("finished", "incomplete"):
        lines = [f"{state} at {found['finished']}: {statuses.total():,} photos: {counts}"]
        return lines + ([f"{found['missing']:,} photos have no result: {AGAIN}"] if found.get("missing") else [])
    where = f" on {found['host']}" if state == "running" else ""
    lines = [f"{state}{where}, {'' if state == 'running' else 'while '}{found.get('phase', 'starting')}"]
    if "to_do" in found:
        done, to_do, rate = found["done"], found["to_do"], found["photos_per_s"]
        left = timedelta(seconds=found["seconds_left"]) if found["seconds_left"] is not None else None
        speed = f"{rate:,.1f} photos/s" if rate else "warming up"
        more = f" · {left} left" if left is not None and state == "running" else ""
        lines.append(f"{done:,} of {to_do:,} ({100 * done / max(1, to_do):.0f} %) · {speed}{more} · {counts}")
    if len(lanes := found.get("lanes") or []) > 1:
        shares = ", ".join(f"{100 * lane['done'] / max(1, lane['to_do']):.0f} %" for lane in lanes)
        lines.append(f"{len(lanes)} lanes: {shares}")
    return lines + ([f"It was cut off: {AGAIN}"] if state == "stopped" else [])


def _json(folder: Folder, name: str) -> dict | None:
    try:
        return json.loads(folder.read(name))
    except (FileNotFoundError, ValueError):
        return None
    except (OSError, botocore.exceptions.BotoCoreError) as error:
        raise UsageError(f"RUN {folder.uri}: cannot be read ({describe(error)})") from error
