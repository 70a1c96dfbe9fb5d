"""Known answers: who gets how much, and who is next."""

import asyncio

import pytest

from geoloc.serving.problems import ProblemError
from geoloc.serving.shares import Room, Turns


def test_one_alone_gets_half_and_others_still_find_room():
    room = Room(96, "memory")
    with room.held("ann") as ann:
        for _ in range(48):
            ann(1)
        with pytest.raises(ProblemError, match="your other requests have all the memory that one may have") as told:
            ann(1)
        assert told.value.members["status"] == 429
        with room.held("bob") as bob:
            for _ in range(24):
                bob(1)
            with pytest.raises(ProblemError, match="your other requests"):
                bob(1)
            with room.held("cy") as cy, pytest.raises(ProblemError, match="no memory left for more"):
                cy(25)
    with room.held("bob") as bob:
        bob(96)


def test_a_small_room_still_has_place_for_one():
    room = Room(1, "waiting places")
    with room.held("ann") as ann:
        ann(1)
        with room.held("bob") as bob, pytest.raises(ProblemError, match="no waiting places left"):
            bob(1)


def order_of(asked: list[str], at_once: int = 1, leaves: int | None = None, most: int = 9) -> list[str]:
    """Who had turns, in their order, each of the seconds after its name; number ``leaves`` goes away while it waits."""

    async def main() -> list[str]:
        turns, had = Turns(at_once), []

        async def one(name: str) -> None:
            who, _, seconds = name.partition(" ")
            async with turns.turn(who, most):
                had.append(who)
                await asyncio.sleep(float(seconds or 0.01))

        tasks = []
        for name in asked:
            tasks.append(asyncio.create_task(one(name)))
            await asyncio.sleep(0)
        if leaves is not None:
            tasks[leaves].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        return had

    return asyncio.run(main())


def test_who_has_many_requests_waits_for_who_has_few():
    assert order_of(["mob"] * 5 + ["ann", "bob"]) == ["mob", "ann", "bob", "mob", "mob", "mob", "mob"]


def test_who_takes_long_waits_longer():
    order = order_of(["mob 0.6"] * 3 + ["ann 0.02"] * 4)
    assert order == ["mob", "ann", "ann", "ann", "ann", "mob", "mob"]


def test_who_leaves_costs_nobody_a_turn():
    assert order_of(["mob", "mob", "ann", "bob"], leaves=2) == ["mob", "bob", "mob"]
    assert order_of(["mob", "mob", "mob"], at_once=2, leaves=0) == ["mob", "mob", "mob"]


def test_one_may_be_kept_to_fewer_than_there_are():
    assert order_of(["mob 0.1", "mob", "mob", "ann"], at_once=2, most=1) == ["mob", "ann", "mob", "mob"]
