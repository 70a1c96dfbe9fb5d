"""What a service has only so much of, shared fairly by those who ask."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from geoloc.serving.problems import busy

REMEMBERED = 1_000
"""Of those who have had turns, beyond which who is away is forgotten."""


class Room:
    """So much of something, such as memory. Nobody may hold more than is left for everybody else: one alone gets half of it, two
    get a third each (Choudhury and Hahne's dynamic thresholds, as switches share their buffers)."""

    def __init__(self, most: int, of: str) -> None:
        """``of`` is what to call it in a refusal."""
        self._left, self._of = most, of
        self._held: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._held.total()

    @contextmanager
    def held(self, client: str) -> Iterator[Callable[[int], None]]:
        """To be called with what a request takes as it takes it; it is free when the request ends. Raises ProblemError."""
        taken = 0

        def hold(amount: int, wait_s: float = 1) -> None:
            nonlocal taken
            if amount > self._left:
                raise busy(f"no {self._of} left for more requests", wait_s)
            if self._held[client] and self._held[client] + amount > self._left - amount:
                raise busy(f"your other requests have all the {self._of} that one may have", wait_s)
            self._left -= amount
            self._held[client] += amount
            taken += amount

        try:
            yield hold
        finally:
            self._left += taken
            self._held[client] -= taken
            if not self._held[client]:
                del self._held[client]


class Turns:
    """So many at a time. Whoever has had the least time of those who wait is next, so that time is shared evenly, however many
    requests each has waiting and however long they take (fair queueing: Demers, Keshav and Shenker, 1989)."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[tuple[asyncio.Future, int]]] = {}
        self._running: Counter[str] = Counter()
        self._had_s: dict[str, float] = {}

    @asynccontextmanager
    async def turn(self, client: str, most: int) -> AsyncIterator[None]:
        """``most``: turns that ``client`` may have at once, for this one to be among them."""
        self._come(client)
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append((mine, most))
        self._hand_out()
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._hand_out()  # others may have waited behind it
            else:  # its turn came together with the cancellation
                self._end(client, 0)
            raise
        start = time.monotonic()
        try:
            yield
        finally:
            self._end(client, time.monotonic() - start)

    def _come(self, client: str) -> None:
        """Who has been away is owed nothing for that time."""
        active = [name for name in (*self._waiting, *self._running) if name != client]
        if client not in self._waiting and client not in self._running:
            least = min((self._had_s[name] for name in active), default=0.0)
            self._had_s[client] = max(self._had_s.get(client, 0.0), least)
        if len(self._had_s) > REMEMBERED:
            self._had_s = {name: self._had_s[name] for name in (*active, client)}

    def _hand_out(self) -> None:
        for client in list(self._waiting):
            while (queue := self._waiting[client]) and queue[0][0].done():  # it has left
                queue.popleft()
            if not queue:
                del self._waiting[client]
        while self._free:
            ready = [client for client, queue in self._waiting.items() if self._running.get(client, 0) < queue[0][1]]
            if not ready:
                return
            client = min(ready, key=self._had_s.__getitem__)
            mine, _ = self._waiting[client].popleft()
            if not self._waiting[client]:
                del self._waiting[client]
            if not mine.done():
                self._free -= 1
                self._running[client] += 1
                mine.set_result(None)

    def _end(self, client: str, seconds: float) -> None:
        self._free += 1
        self._running[client] -= 1
        if not self._running[client]:
            del self._running[client]
        self._had_s[client] += seconds
        self._hand_out()
