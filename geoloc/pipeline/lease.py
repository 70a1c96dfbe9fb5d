"""One run at a time a folder, whatever machines it is started on, and none that goes on writing when it has lost its turn.

``lease/`` holds a file for the run whose turn it is, named by its term, which grows by one from turn to turn. A term is taken
by creating its file where there is none, which a store lets one alone do; the highest term is the one that holds. Its run
renews the file, and leaves it there, released, at the end.

No clocks of two machines are compared: whether a run elsewhere lives is told by watching it renew. A run that was paused, or
cut off, finds a higher term before its next write (Fence), in every process of it, but for TRUST_S, in which whoever took it
over waits; what it had under way carries its term in the name (geoloc.results.parts), and gives way.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from geoloc.errors import UsageError
from geoloc.storage import Folder, NoConditionsError
from geoloc.threads import beside

log = logging.getLogger("geoloc")

LEASE = "lease"
"""Of a run's folder."""
BEAT_S = 5
LOOK_S = 3 * BEAT_S
STALE_S = 60
"""A run elsewhere that has not renewed for so long, while it was watched, is dead."""
TRUST_S = 10
"""How long a process relies on having seen that the lease is its run's; much less than STALE_S."""
MARGIN_S = 1
HALVES = 5
"""Looks at a record that is being renewed on a file system that shows halves."""
SETTLE_S = 5
"""Two runs that create one file on a store without conditional writes have both done so."""

_confirmed: dict[str, float] = {}
"""By its token, when this process last saw that a run holds its lease."""


class LeaseLostError(UsageError):
    """Another run has taken the folder over."""


@dataclass(frozen=True)
class Fence:
    """What a write of a run asks first, in whichever process. Raises LeaseLostError."""

    folder: Folder
    """Of the terms."""
    term: int
    token: str

    def __call__(self) -> None:
        if _now() - _confirmed.get(self.token, -TRUST_S) < TRUST_S:
            return
        asked = _now()
        last, holder = _last(self.folder)
        for _ in range(HALVES):
            if (last, holder) != (self.term, {}):
                break
            time.sleep(MARGIN_S / 5)
            last, holder = _last(self.folder)
        if (last, holder.get("token")) != (self.term, self.token):
            raise LeaseLostError(
                f"OUTPUT {self.folder.parent()[0].uri}: a run on {holder.get('host', 'another machine')} took it over, because this "
                "one had not been heard of, and goes on there"
            )
        _confirmed[self.token] = asked


@contextmanager
def leased(folder: Folder, wait_minutes: float = 0) -> Iterator[Folder]:
    """The folder, for this run to write to. Raises UsageError where another run holds it, and does for ``wait_minutes``.

    A run on this machine lives while its process does; whether one elsewhere does takes up to STALE_S to see.
    """
    terms = folder / LEASE
    mine = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "processes": _processes(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }
    term = _acquire(terms, mine, 60 * wait_minutes)
    for before in range(_terms(terms)[1], term):
        terms.delete(_name(before))
    fence = Fence(terms, term, mine["token"])

    def beat(stop: threading.Event) -> None:
        beats = 0
        while not stop.wait(BEAT_S):
            beats += 1
            with suppress(Exception):  # a storage that answers again in time has done no harm; else the fence will tell
                fence()
                terms.write(_name(term), json.dumps(mine | {"beats": beats}).encode(), durable=False)

    try:
        with beside(beat, "lease"):
            yield replace(folder, fence=fence)
    finally:
        with suppress(Exception):  # whoever comes next sees that nobody renews it
            last, holder = _last(terms)
            if (last, holder.get("token")) == (term, mine["token"]):
                terms.write(_name(term), json.dumps(mine | {"released": True}).encode())


def holder_of(folder: Folder) -> str | None:
    """The host of the run that holds a folder, for those who look on; None where none does, as far as can be seen in LOOK_S."""
    terms = folder / LEASE
    term, first = _last(terms)
    lives, until = _lives(first), _now() + LOOK_S
    while lives is None and _now() < until:
        time.sleep(BEAT_S / 5)
        lives = True if _last(terms) != (term, first) else None
    return first.get("host", "another machine") if lives else None


def _acquire(terms: Folder, mine: dict, wait_s: float) -> int:
    """The term that was taken."""
    deadline, watched = _now() + wait_s, _Watched()
    while True:
        term, holder = _last(terms)
        lives = _lives(holder)
        if lives is None:
            lives = watched.lives(term, holder)
        if lives is False:
            if _taken(terms, term + 1, mine, waits=not holder.get("released")):
                return term + 1
            continue  # another was there before
        if lives and _now() >= deadline:
            raise UsageError(
                f"OUTPUT {terms.parent()[0].uri}: a run on {holder.get('host', 'another machine')} (process "
                f"{holder.get('pid', '?')}) is writing there; stop it, or wait for it (--wait-minutes)"
            )
        time.sleep(BEAT_S / 5)


class _Watched:
    """A holder elsewhere, of which nothing is known but what it writes."""

    def __init__(self) -> None:
        self._term, self._record, self._since, self._renewed = -1, {}, 0.0, False

    def lives(self, term: int, record: dict) -> bool | None:
        """None while that cannot be told."""
        if term != self._term:
            log.info("A run on %s was here last; watching whether it lives", record.get("host", "another machine"))
            self._term, self._record, self._since, self._renewed = term, record, _now(), False
        elif record != self._record:
            self._record, self._since, self._renewed = record, _now(), True
        elif _now() - self._since > STALE_S:
            return False
        return self._renewed or None


def _lives(holder: dict) -> bool | None:
    """None where the holder is on another machine, or in another container, whose processes cannot be seen."""
    if holder.get("released"):
        return False
    if holder.get("processes") is None or holder["processes"] != _processes():
        return None
    return _started(holder["pid"]) == holder["started"]


def _started(pid: int) -> int | None:
    """When a process was started, in the kernel's ticks, which no change of the clock changes; None where it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])


def _processes() -> str | None:
    """What process numbers count in: a machine since it was started, and a namespace of it. None where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _taken(terms: Folder, term: int, mine: dict, waits: bool) -> bool:
    """Whether a term is ours: created, and still ours when whoever may write on in vain, or has created it too, has noticed.

    ``waits``: for the run before, which has not released its own. A store that does not hinder two from creating one file says so,
    or is found out by trying.
    """
    try:
        if not terms.create(_name(term), json.dumps(mine).encode()):
            return False
        settles = terms.create(_name(term), json.dumps(mine | {"token": f"not {mine['token']}"}).encode())
    except NoConditionsError:
        if terms.exists(_name(term)):
            return False
        settles = True
    if settles:
        terms.write(_name(term), json.dumps(mine).encode())
        time.sleep(SETTLE_S)
    if not _holds(terms, term, mine):
        return False
    if settles or waits:
        log.info("Waiting %g s for the last writes of the run before", TRUST_S + MARGIN_S)
        time.sleep(TRUST_S + MARGIN_S)
    return _holds(terms, term, mine)


def _holds(terms: Folder, term: int, mine: dict) -> bool:
    last, holder = _last(terms)
    return last == term and holder.get("token") == mine["token"]


def _last(terms: Folder) -> tuple[int, dict]:
    """The highest term and its record; a released one before the first, and an empty one for what cannot be read."""
    term = _terms(terms)[-1]
    try:
        record = json.loads(terms.read(_name(term))) if term else {"released": True}
        return term, record if isinstance(record, dict) else {}
    except (FileNotFoundError, ValueError):  # the next holder has put it away; or a file system that shows halves
        return term, {}


def _terms(terms: Folder) -> list[int]:
    """Ascending, from 0, which nobody holds."""
    return [
        0,
        *sorted(int(name.removesuffix(".json")) for name in terms.names() if name.removesuffix(".json").isdigit()),
    ]


def _name(term: int) -> str:
    return f"{term:06d}.json"


def _now() -> float:
    """Seconds that pass while a process is stopped or its machine asleep, too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
