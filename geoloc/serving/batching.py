"""Requests that come one by one, answered together: as many as wait when the models are free.

Ray Serve's own batches close while the models are still at the one before; under load that makes batches of one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Batcher:
    def __init__(self, work: Callable[[list], list], most: int, at_once: int = 1) -> None:
        """``work`` answers a list of up to ``most``, in their order, in a thread, with ``at_once`` such lists at a time."""
        self._work, self._most, self._at_once = work, most, at_once
        self._waiting: deque[tuple[Any, asyncio.Future]] = deque()
        self._workers: dict[asyncio.Task, float] = {}
        """With the time they began with the list they are at."""
        self._threads = ThreadPoolExecutor(at_once)
        self._seconds_each = 0.0

    @property
    def busy_s(self) -> float | None:
        """How long the oldest list has been worked on; None where there is none."""
        return time.monotonic() - min(self._workers.values()) if self._workers else None

    @property
    def wait_s(self) -> float:
        """Until what waits now has been answered, going by the latest batches."""
        return len(self._waiting) * self._seconds_each / self._at_once

    async def __call__(self, request: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if len(self._workers) < self._at_once:
            worker = asyncio.create_task(self._answer_all())
            self._workers[worker] = time.monotonic()
            worker.add_done_callback(self._workers.pop)
        return await answer

    async def _answer_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            start = self._workers[asyncio.current_task()] = time.monotonic()
            await self._answer([one for one in batch if not one[1].done()])  # nobody waits for the others
            self._seconds_each += 0.2 * ((time.monotonic() - start) / len(batch) - self._seconds_each)

    async def _answer(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        """Where a batch fails, each alone, so that one fails for itself."""
        if not batch:
            return
        try:
            requests = [one for one, _ in batch]
            answers = await asyncio.get_running_loop().run_in_executor(self._threads, self._work, requests)
        except Exception as error:
            if len(batch) == 1:
                _settle(batch[0][1], error=error)
                return
            for one in batch:
                await self._answer([one])
            return
        for (_, answer), found in zip(batch, answers, strict=True):
            _settle(answer, found)


def _settle(answer: asyncio.Future, found: Any = None, error: Exception | None = None) -> None:
    if answer.done():
        return
    if error:
        answer.set_exception(error)
    else:
        answer.set_result(found)
