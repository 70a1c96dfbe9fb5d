"""What a service has only so much of, shared fairly by those who ask."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from geoloc.serving.problems import busy


class Room:
    """So much of something, such as memory. Nobody may hold more than is left for everybody else: one alone gets half of it, two
    get a third each (Choudhury and Hahne's dynamic thresholds, as switches share their buffers)."""

    def __init__(self, most: int, of: str) -> None:
        """``of`` is what to call it in a refusal."""
        self._left, self._of = most, of
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, who: str) -> Iterator[Callable[[int], None]]:
        """To be called with what a request takes as it takes it; it is free when the request ends. Raises ProblemError."""
        taken = 0

        def hold(amount: int, wait_s: float = 1) -> None:
            nonlocal taken
            if amount > self._left:
                raise busy(f"no {self._of} left for more requests", wait_s)
            if self._held[who] and self._held[who] + amount > self._left - amount:
                raise busy(f"your other requests have as much {self._of} as anybody may", wait_s)
            self._left -= amount
            self._held[who] += amount
            taken += amount

        try:
            yield hold
        finally:
            self._left += taken
            self._held[who] -= taken
            if not self._held[who]:
                del self._held[who]


class Turns:
    """So many at a time; whoever waits comes in turn with others, however many requests each has waiting."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        await self._begin(who)
        try:
            yield
        finally:
            self._end()

    async def _begin(self, who: str) -> None:
        if self._free:
            self._free -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn came together with the cancellation
                self._end()
            raise

    def _end(self) -> None:
        while self._waiting:
            who, queue = self._waiting.popitem(last=False)
            next_one = queue.popleft()
            if queue:
                self._waiting[who] = queue  # at the end: the others are first
            if not next_one.done():
                next_one.set_result(None)
                return
        self._free += 1
