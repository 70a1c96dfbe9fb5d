"""Who may ask, and how often. Keys are known by their SHA-256 alone.

python -m geoloc.serving.access NAME    # makes a key: prints it once, and the line for the file of keys
"""

import hashlib
import hmac
import os
import re
import secrets
import sys
import time
from collections import OrderedDict
from pathlib import Path

from geoloc.errors import UsageError

ENVIRONMENT = "GEOLOC_API_KEYS"
_LINE = re.compile(r"([\w.@-]+)\s+([0-9a-f]{64})")
_WATCHED = 10_000


def read_keys(file: str | None) -> dict[str, str]:
    """Names by the hashes of their keys, from a file and from the environment. Raises UsageError."""
    try:
        text = (Path(file).read_text() if file else "") + "\n" + os.environ.get(ENVIRONMENT, "")
    except OSError as error:
        raise UsageError(f"keys {file}: cannot read it ({error})") from error
    keys = {}
    for line in filter(None, map(str.strip, re.split(r"[\n,]", text))):
        found = _LINE.fullmatch(line)
        if not found and not line.startswith("#"):
            raise UsageError(f"keys {file or ENVIRONMENT}: a line is not a name and a SHA-256 in hexadecimal")
        if found:
            keys[found[2]] = found[1]
    return keys


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

    def wait_s(self, who: str, now: float | None = None) -> float:
        """0 if a photo may pass, and it counts then; else the seconds until it may."""
        now = time.monotonic() if now is None else now
        left, then = self._left.pop(who, (self._a_minute, now))
        left = min(self._a_minute, left + (now - then) * self._a_minute / 60)
        passes = left >= 1
        self._left[who] = (left - 1 if passes else left, now)
        if len(self._left) > _WATCHED:
            self._left.popitem(last=False)
        return 0.0 if passes else (1 - left) * 60 / self._a_minute

    def charge(self, who: str, more: int) -> None:
        """For photos that came with one that passed; whoever brings more than was left waits the longer afterwards."""
        left, then = self._left[who]
        self._left[who] = left - more, then


if __name__ == "__main__":
    made = secrets.token_urlsafe(32)
    print(f"key, shown once: {made}", file=sys.stderr)
    print(f"{sys.argv[1]} {hashlib.sha256(made.encode()).hexdigest()}")
