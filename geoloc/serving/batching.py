"""Requests that come one by one, answered together: as many as wait when the models are free.

Ray Serve's own batches close while the models are still at the one before; under load that makes batches of one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Together:
    def __init__(self, work: Callable[[list], list], most: int) -> None:
        """``work`` answers a list of up to ``most``, in their order, in a thread and never twice at once."""
        self._work, self._most = work, most
        self._waiting: deque[tuple[Any, asyncio.Future]] = deque()
        self._working: asyncio.Task | None = None

    async def __call__(self, asked: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            await self._answer(
                [(asked, answer) for asked, answer in batch if not answer.done()]
            )  # who has left is not asked for

    async def _answer(self, batch: list[tuple[Any, asyncio.Future]]) -> None:
        """Where a batch fails, each alone, so that one fails for itself."""
        if not batch:
            return
        try:
            answers = await asyncio.to_thread(self._work, [asked for asked, _ in batch])
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
