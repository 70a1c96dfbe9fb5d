"""When a photo was taken, by what it carries: the first time that can be read, and which one that was."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"(\d{4})[-:/. ]\s*(\d{1,2})[-:/. ]\s*(\d{1,2})[T ]\s*(\d{1,2})[:. ]\s*(\d{1,2})(?:[:. ]\s*(\d{1,2})(?:[.,](\d+))?)?\s*"
    r"(Z|[-+]\d{1,2}:?\d{2})?$"
)
_OFFSET = re.compile(r"(Z)|([-+])(\d{1,2}):?(\d{2})$")
_IN_NAMES = re.compile(
    r"(?<!\d)((?:19|20)\d{2})([-_.]?)(\d{2})\2(\d{2})[-_. T]+(?:at[-_. ])?(\d{2})[-_.:h]?(\d{2})[-_.:m]?(\d{2})(\d{3})?(?!\d)"
)
_QUARTERS = (345, 525, 765, 825)
"""Nepal, Eucla, Chatham in winter and in summer."""
_SAME_MOMENT = 1.5
"""Minutes that a camera's clock may be wrong, or a fix old."""
_UTC_NAMES = ("PXL_",)
"""Beginnings of names (Google Pixel's) whose time is UTC."""


@dataclass(frozen=True)
class Taken:
    at: datetime
    """By the clock where the offset is counted from: no time zone."""
    utc_offset_minutes: int | None = None
    """That clock minus UTC; None where it is not known."""
    source: str = ""
    """``exif:DateTimeOriginal`` and the like, the name of a sidecar, or ``file name``."""


def offset_between(local: datetime, utc: datetime | None) -> int | None:
    """Minutes that a clock is ahead of UTC, where that is what some zone is; None where the two are not of one moment.

    >>> offset_between(datetime(2019, 7, 4, 15, 30, 20), datetime(2019, 7, 4, 13, 30))
    120
    """
    if utc is None:
        return None
    minutes = (local - utc).total_seconds() / 60
    offset = 15 * round(minutes / 15)
    is_zone = -12 * 60 <= offset <= 14 * 60 and (offset % 30 == 0 or offset in _QUARTERS)
    return offset if is_zone and abs(minutes - offset) <= _SAME_MOMENT else None


def first_time(readings: Iterable[Taken | None]) -> Taken | None:
    return next((taken for taken in readings if taken is not None), None)


def read_time(text: object, source: str, subseconds: object = None, offset: object = None) -> Taken | None:
    """Of EXIF's or XMP's spelling; ``subseconds`` and ``offset`` are those of EXIF's own tags.

    None where it is blank, zero, a date alone, or no time that there was (24:00, 30 February).

    >>> read_time("2015:02:01 14:42:59+01:00", "exif:DateTimeOriginal", "25").at
    datetime.datetime(2015, 2, 1, 14, 42, 59, 250000)
    """
    found = _TIME.match(_clean(text))
    if not found:
        return None
    fraction = found[7] or re.match(r"\d*", _clean(subseconds))[0]
    at = _datetime(*found.group(1, 2, 3, 4, 5), found[6] or 0, fraction)
    minutes = _offset(found[8]) if found[8] else _offset(_clean(offset))
    return None if at is None else Taken(at, minutes, source)


def time_of_name(name: str) -> Taken | None:
    """Of a file name such as ``IMG_20190704_153001.jpg``, ``2019-07-04 15.30.01.heic`` or ``PXL_20190704_133001123.jpg``."""
    found = _IN_NAMES.search(name)
    if not found:
        return None
    at = _datetime(*found.group(1, 3, 4, 5, 6, 7), found[8] or "")
    return None if at is None else Taken(at, 0 if name.startswith(_UTC_NAMES) else None, "file name")


def time_of_epoch(seconds: object, source: str) -> Taken | None:
    """Of seconds since 1970, as text or number; 0 and below say nothing."""
    try:
        value = int(seconds)
        if value <= 0:
            return None
        return Taken(datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(seconds=value), 0, source)
    except (TypeError, ValueError, OverflowError):
        return None


CLOCK_STARTS = (datetime(1970, 1, 1), datetime(1980, 1, 1))
"""Days that clocks count from: no photo has its time from them."""
RESETS = (datetime(2000, 1, 1),)
"""Midnights that cameras begin again at."""


def capture_time(at: datetime) -> bool:
    """Whether a photo may have been taken then, and it is not what a clock shows that was never set.

    >>> capture_time(datetime(1970, 1, 1, 3)), capture_time(datetime(2000, 1, 1)), capture_time(datetime(2000, 1, 1, 15))
    (False, False, True)
    """
    at = at.replace(tzinfo=None)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return at.year > 1825 and day not in CLOCK_STARTS and at.replace(second=0, microsecond=0) not in RESETS


def _datetime(year, month, day, hour, minute, second, fraction: str) -> datetime | None:
    try:
        return datetime(
            *(int(part) for part in (year, month, day, hour, minute, second)), int(fraction[:6].ljust(6, "0") or 0)
        )
    except ValueError:
        return None


def _offset(text: str) -> int | None:
    found = _OFFSET.match(text)
    if not found:
        return None
    if found[1]:
        return 0
    minutes = 60 * int(found[3]) + int(found[4])
    return None if minutes > 14 * 60 else (-minutes if found[2] == "-" else minutes)


def _clean(text: object) -> str:
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text or "")
    return text.split("\0")[0].strip()
