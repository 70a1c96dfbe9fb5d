import asyncio
import threading

import pytest

from geoloc.serving.batching import Batcher


def test_who_waits_while_the_models_work_is_answered_together():
    sizes, free = [], threading.Event()

    def work(numbers: list[int]) -> list[int]:
        sizes.append(len(numbers))
        free.wait(5)
        return [number * 10 for number in numbers]

    async def ask() -> list[int]:
        batcher = Batcher(work, most=4)
        asked = [asyncio.create_task(batcher(0))]
        await asyncio.sleep(0.1)
        asked += [asyncio.create_task(batcher(number)) for number in range(1, 8)]
        await asyncio.sleep(0.1)
        asked[2].cancel()
        free.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert isinstance(answers.pop(2), asyncio.CancelledError)
    assert answers == [0, 10, 30, 40, 50, 60, 70]
    assert sizes == [1, 3, 3]


def test_one_that_fails_fails_alone():
    def work(numbers: list[int]) -> list[float]:
        return [1 / number for number in numbers]

    async def ask() -> list:
        batcher = Batcher(work, most=8)
        return await asyncio.gather(*(batcher(number) for number in (1, 0, 2)), return_exceptions=True)

    first, failed, last = asyncio.run(ask())
    assert (first, last) == (1, 0.5)
    with pytest.raises(ZeroDivisionError):
        raise failed


def test_batches_side_by_side():
    both = threading.Barrier(2, timeout=5)

    def work(numbers: list[int]) -> list[int]:
        both.wait()
        return numbers

    async def ask() -> list[int]:
        batcher = Batcher(work, most=2, at_once=2)
        return await asyncio.gather(*(batcher(number) for number in range(4)))

    assert asyncio.run(ask()) == [0, 1, 2, 3]


def test_how_long_it_has_been_at_a_batch():
    free = threading.Event()

    async def ask() -> list:
        batcher = Batcher(lambda numbers: free.wait(5) and numbers, most=1)
        before = batcher.busy_s
        asked = asyncio.create_task(batcher(1))
        await asyncio.sleep(0.2)
        during = batcher.busy_s
        free.set()
        await asked
        await asyncio.sleep(0)
        return [before, during, batcher.busy_s]

    before, during, after = asyncio.run(ask())
    assert before is None
    assert 0.15 < during < 5
    assert after is None
