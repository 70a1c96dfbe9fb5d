"""Work on a run's files: in this process, or, where a run is large, by Ray's tasks, spread over the nodes."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from geoloc.errors import reason_of
from geoloc.results.parts import Each

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 1_000_000
"""Photos, of some files or of some households, that one process works on: some 300 bytes each, and twice as much at work."""
AHEAD = 1_000
"""Tasks that are under way at most."""


def here(function: Callable, *args: Any, returns: int = 0) -> Any:
    return function(*args)


class Cluster:
    """Ray's tasks; their values are references until ``value`` has them, or another task. Joined when there is something to do."""

    def __call__(self, function: Callable, *args: Any, returns: int = 0) -> Any:
        import ray

        from geoloc.pipeline.cluster import connect

        connect()
        task = _remote(function).options(num_cpus=1, num_returns=max(returns, 1), scheduling_strategy="SPREAD")
        if returns == 1:
            task = ray.remote(lambda *args: function(*args)[0]).options(num_cpus=1, scheduling_strategy="SPREAD")
            return [task.remote(*args)]
        return task.remote(*args)

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As ``map``: in their order."""
        under_way = deque()
        for item in items:
            under_way.append(self(_applied, function, item))
            if len(under_way) >= AHEAD:
                yield value(under_way.popleft())
        while under_way:
            yield value(under_way.popleft())


@functools.lru_cache(maxsize=64)
def _remote(function: Callable) -> Any:
    """Made known to the cluster once."""
    import ray

    return ray.remote(function)


def _applied(function: Callable[[T], R], item: T) -> R:
    return function(item)


def each_of(photos: int) -> Each:
    """For the files of so many photos."""
    return Cluster().each if photos > AT_ONCE else map


def value(of: Any) -> Any:
    """Raises what a task said that it failed of."""
    import ray

    if not isinstance(of, ray.ObjectRef):
        return of
    try:
        return ray.get(of)
    except ray.exceptions.RayError as error:
        raise reason_of(error) from error
