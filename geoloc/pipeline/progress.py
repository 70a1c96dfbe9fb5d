"""How far a run is, on the console: one line that is redrawn in a terminal, a line now and then in a log."""

import sys
import time
from collections import Counter
from datetime import timedelta


class Progress:
    def __init__(self, total: int, every_s: float | None = None) -> None:
        self._total, self._unheard, self._statuses = total, 0, Counter()
        self._terminal = sys.stderr.isatty()
        self._every_s = every_s if every_s is not None else (0.5 if self._terminal else 10)
        self._start = self._shown = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._lanes: list[dict[str, int]] = []
        self._latest = self._start

    def begin_lanes(self, photos: list[int]) -> None:
        """That each of them has to do from now on."""
        self._lanes = [{"to_do": to_do, "done": 0} for to_do in photos]

    def add(self, statuses: dict[str, int], lane: int = 0) -> None:
        """Count rows that a lane has written."""
        self._statuses.update(statuses)
        if self._lanes:
            self._lanes[lane]["done"] += sum(statuses.values())
        now = self._latest = time.monotonic()
        if self._first is None:
            self._first = (now, self.photos)  # the rate is taken from here, so that start-up does not count
        if now - self._shown >= self._every_s or self.photos >= self._total:
            self._shown = now
            print(self._line(now), end="\r" if self._terminal else "\n", file=sys.stderr, flush=True)

    def found_done(self, photos: int) -> None:
        """So many are written in all; of some, nothing was heard before what would have said so was stopped."""
        self._unheard = photos - self._statuses.total()

    def close(self) -> None:
        if self._terminal:
            print(file=sys.stderr)

    def record(self) -> dict:
        """For those who look on from elsewhere (geoloc.pipeline.status)."""
        return {
            "to_do": self._total,
            "done": self.photos,
            "statuses": dict(self._statuses),
            "seconds": round(self.seconds),
            "photos_per_s": round(self._rate(), 1),
            "seconds_left": self._seconds_left(),
            "lanes": self._lanes,
        }

    @property
    def photos(self) -> int:
        """That are written."""
        return self._statuses.total() + self._unheard

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def first(self) -> tuple[float, int]:
        """Seconds until the first rows were written, and how many they were."""
        return (self._first[0] - self._start, self._first[1]) if self._first else (0.0, 0)

    @property
    def rate(self) -> float:
        """Photos a second since then; of all, where there are no others."""
        return self._rate() or self.photos / self.seconds

    def _rate(self) -> float:
        """0 until a second part has been written."""
        first_time, first_done = self._first or (self._start, 0)
        seconds = self._latest - first_time
        return (self.photos - first_done) / seconds if self.photos > first_done and seconds > 0 else 0.0

    def _seconds_left(self) -> int | None:
        rate = self._rate()
        return round((self._total - self.photos) / rate) if rate else None

    def _line(self, now: float) -> str:
        rate = self._rate()
        speed = f"{rate:.1f} photos/s · {timedelta(seconds=self._seconds_left())} left" if rate else "warming up"
        share = 100 * self.photos / max(self._total, 1)
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self._statuses.items()))
        elapsed = timedelta(seconds=round(now - self._start))
        return f"[{elapsed}] {self.photos:,} of {self._total:,} ({share:.0f} %) · {speed} · {counts}"
