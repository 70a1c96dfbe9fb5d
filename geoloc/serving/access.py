"""Who may ask, and how often. Keys are known by their SHA-256 alone (geoloc.serving.keys makes them)."""

import hashlib
import hmac
import logging
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path

from geoloc.errors import UsageError

log = logging.getLogger("geoloc")

LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
ENVIRONMENT = "GEOLOC_API_KEYS"
NAME = re.compile(r"[\w.@-]{1,100}")
_LINE = re.compile(rf"({NAME.pattern})\s+([0-9a-f]{{64}})")
RELOAD_S = 1
"""Between two checks whether the file of keys has changed."""
_WATCHED = 10_000
_GONE_S = 60


def read_keys(file: str | None) -> dict[str, str]:
    """Names by the hashes of their keys, from a file and from the environment. Raises UsageError."""
    return (keys_of_file(file) if file else {}) | keys_of_environment()


def keys_of_file(file: str) -> dict[str, str]:
    try:
        lines = Path(file).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"keys {file}: cannot read it ({error})") from error
    return _parsed(file, lines)


def keys_of_environment() -> dict[str, str]:
    return _parsed(ENVIRONMENT, re.split(r"[\n,]", os.environ.get(ENVIRONMENT, "")))


def _parsed(source: str, lines: list[str]) -> dict[str, str]:
    keys = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        found = _LINE.fullmatch(line)
        if found:
            keys[found[2]] = found[1]
        elif line and not line.startswith("#"):
            raise UsageError(f"keys {source}: line {number} is not a name and a SHA-256 in hexadecimal")
    return keys


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site asks: a form there may send a photo here without asking first.

    By ``Origin`` (RFC 6454) and ``Sec-Fetch-Site``; who sends neither is no page.
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return True
    return headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")


def named(keys: dict[str, str], key: str) -> str | None:
    """Whose key it is. Takes as long for a wrong one as for a right one."""
    digest = key_hash(key)
    owner = None
    for known, name in keys.items():
        owner = (owner, name)[hmac.compare_digest(known, digest)]
    return owner


def key_hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """Those of a file and of the environment, read again when the file changes: who is revoked there is refused at once."""

    def __init__(self, file: str | None) -> None:
        """Raises UsageError."""
        self._file, self._state, self._looked = file, self._stat(file), time.monotonic()
        self._owners = read_keys(file)
        self._needed = bool(self._owners)

    def __bool__(self) -> bool:
        """Whether there were any at the start; a service with keys never becomes one without."""
        return self._needed

    def owner(self, key: str) -> str | None:
        """Whose key it is."""
        if self._file and time.monotonic() - self._looked > RELOAD_S:
            self._reload()
        return named(self._owners, key)

    def _reload(self) -> None:
        state, self._looked = self._stat(self._file), time.monotonic()
        if state == self._state:
            return
        try:
            self._owners, self._state = read_keys(self._file), state
        except UsageError as error:
            log.error("the keys stay as they were until they can be read: %s", error)

    @staticmethod
    def _stat(file: str | None) -> tuple | None:
        try:
            found = os.stat(file) if file else None
        except OSError:
            return None
        return found and (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)


class Rate:
    """Photos a minute by whoever asks, with as many at once."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._unreported: Counter[str] = Counter()

    def wait_s(self, client: str, now: float | None = None) -> float:
        """0 if a photo may pass, and it counts then; else the seconds until it may."""
        left, now = self._take(client, now)
        passes = left >= 1
        self._left[client] = left, now
        if passes:
            self.charge(client, 1, now)
        return 0.0 if passes else (1 - left) * 60 / self._a_minute

    def charge(self, client: str, photos: int, now: float | None = None, here: bool = True) -> None:
        """For photos that came with one that passed, or elsewhere than ``here``; whoever brings more than was left waits the
        longer afterwards."""
        left, now = self._take(client, now)
        self._left[client] = left - photos, now
        if here:
            self._unreported[client] += photos
        if len(self._left) > _WATCHED:
            self._left.popitem(last=False)

    def left(self, client: str, now: float | None = None) -> tuple[int, int]:
        """Photos that may pass at once, and the seconds until that are as many as there can be."""
        left, now = self._take(client, now)
        self._left[client] = left, now
        return max(0, math.floor(left)), math.ceil((self._a_minute - left) * 60 / self._a_minute)

    def report(self) -> dict[str, int]:
        """The photos that have counted here since this was last asked, by who brought them."""
        spent, self._unreported = self._unreported, Counter()
        return dict(spent)

    def _take(self, client: str, now: float | None) -> tuple[float, float]:
        now = time.monotonic() if now is None else now
        left, then = self._left.pop(client, (self._a_minute, now))
        return min(self._a_minute, left + (now - then) * self._a_minute / 60), now


class Ledger:
    """What copies of the service tell each other of who has asked for how much."""

    def __init__(self) -> None:
        self._owed: dict[str, tuple[Counter[str], float]] = {}

    def exchange(self, copy: str, spent: dict[str, int], now: float | None = None) -> dict[str, int]:
        """Takes what was spent at that copy, and gives what was spent at the others since it last asked."""
        now = time.monotonic() if now is None else now
        mine, _ = self._owed.pop(copy, (Counter(), now))
        self._owed = {name: one for name, one in self._owed.items() if now - one[1] < _GONE_S}
        for owed, _ in self._owed.values():
            owed.update(spent)
        self._owed[copy] = Counter(), now
        return dict(mine)
