"""Who may ask, and how often. Keys are known by their SHA-256 alone.

python -m geoloc.serving.access NAME    # makes a key: prints it once, and the line for the file of keys
"""

import hashlib
import hmac
import math
import os
import re
import secrets
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path

from geoloc.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "[::1]", "localhost")
ENVIRONMENT = "GEOLOC_API_KEYS"
_LINE = re.compile(r"([\w.@-]+)\s+([0-9a-f]{64})")
_WATCHED = 10_000
_GONE_S = 60


def read_keys(file: str | None) -> dict[str, str]:
    """Names by the hashes of their keys, from a file and from the environment. Raises UsageError."""
    try:
        sources = {file: Path(file).read_text().split("\n")} if file else {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"keys {file}: cannot read it ({error})") from error
    sources[ENVIRONMENT] = re.split(r"[\n,]", os.environ.get(ENVIRONMENT, ""))
    keys = {}
    for source, lines in sources.items():
        for number, line in enumerate(map(str.strip, lines), 1):
            found = _LINE.fullmatch(line)
            if found:
                keys[found[2]] = found[1]
            elif line and not line.startswith("#"):
                raise UsageError(f"keys {source}: line {number} is not a name and a SHA-256 in hexadecimal")
    return keys


def is_elsewheres(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a page of another site asks: a form there may send a photo here without asking first.

    By ``Origin`` (RFC 6454) and ``Sec-Fetch-Site``; who sends neither is no page.
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return True
    return headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")


def named(keys: dict[str, str], key: str) -> str | None:
    """Whose key it is. Takes as long for a wrong one as for a right one."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    owner = None
    for known, name in keys.items():
        if hmac.compare_digest(known, digest):
            owner = name
    return owner


class Rate:
    """Photos a minute by whoever asks, with as many at once."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._unreported: Counter[str] = Counter()

    def wait_s(self, who: str, now: float | None = None) -> float:
        """0 if a photo may pass, and it counts then; else the seconds until it may."""
        left, now = self._take(who, now)
        passes = left >= 1
        self._left[who] = left, now
        if passes:
            self.charge(who, 1, now)
        return 0.0 if passes else (1 - left) * 60 / self._a_minute

    def charge(self, who: str, photos: int, now: float | None = None, here: bool = True) -> None:
        """For photos that came with one that passed, or elsewhere than ``here``; whoever brings more than was left waits the
        longer afterwards."""
        left, now = self._take(who, now)
        self._left[who] = left - photos, now
        if here:
            self._unreported[who] += photos
        if len(self._left) > _WATCHED:
            self._left.popitem(last=False)

    def left(self, who: str, now: float | None = None) -> tuple[int, int]:
        """Photos that may pass at once, and the seconds until that are as many as there can be."""
        left, now = self._take(who, now)
        self._left[who] = left, now
        return max(0, math.floor(left)), math.ceil((self._a_minute - left) * 60 / self._a_minute)

    def report(self) -> dict[str, int]:
        """The photos that have counted here since this was last asked, by who brought them."""
        spent, self._unreported = self._unreported, Counter()
        return dict(spent)

    def _take(self, who: str, now: float | None) -> tuple[float, float]:
        now = time.monotonic() if now is None else now
        left, then = self._left.pop(who, (self._a_minute, now))
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


if __name__ == "__main__":
    made = secrets.token_urlsafe(32)
    print(f"key, shown once: {made}", file=sys.stderr)
    print(f"{sys.argv[1]} {hashlib.sha256(made.encode()).hexdigest()}")
