"""A lane: stretches of the manifest on their way through loading tasks and pools of actors to parts.

Ray Data's own part of it, for every block and every task, is one process's, and bounds how many photos a second it can move. So a
large archive on many GPUs goes over several lanes side by side, each a process on any node, with a share of the stretches and of
the actors; the job's driver only hears of what they have written.

Loading tasks and the writer import this module in processes of their own, so it does without torch.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from geoloc.errors import ACCESS, SourceFailingError, UsageError, reason_of
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.pipeline.cluster import connect
from geoloc.pipeline.metrics import count_fetched
from geoloc.pipeline.models import ModelActor
from geoloc.pipeline.placement import InBundles
from geoloc.pipeline.plan import LOADER_CPUS, TOKEN_CPUS, Pool
from geoloc.pipeline.run import Unit
from geoloc.results.parts import Parts
from geoloc.schema import SECONDS
from geoloc.storage import describe

log = logging.getLogger("geoloc")

LOADING, WRITING = "loading", "writing"
PATIENCE_S, AGAIN_S = 600, 5
"""That a store may be out of order, and between two attempts to write to it."""
RECENT = 1_000
"""Photos that the share of failures is taken of."""
LOST_IN_VAIN = 3
"""Times that a lane may be lost without a part written in between."""
STORE_SHARE = 0.5
"""Of the object store, that Ray Data takes for what is on its way; of lanes, all together."""
TOLD_ROWS, TOLD_S = 512, 1.0
"""A loading task tells of what it has seen when it is so much, and that it lives so often."""
OUT_OF_REACH = frozenset((*ACCESS, "network", "throttled")) - {"archived"}
"""Kinds of failure that say something of the source, not of a photo."""


@dataclass(frozen=True)
class Lane:
    units: Sequence[Unit]
    pools: tuple[Pool, ...]
    group: PlacementGroup
    load: LoadOptions
    manifest: ray.ObjectRef
    tried_again: ray.ObjectRef
    parts: Parts
    part_rows: int
    finish: Callable[[pa.Table], pa.Table] | None
    pulse: ray.actor.ActorHandle
    breaker: ray.actor.ActorHandle

    @property
    def photos(self) -> int:
        """That are left of its units."""
        return sum(unit.left for unit in self.units)

    def split(self, count: int) -> list["Lane"]:
        """Into so many, or as many as there are stretches, and actors of every pool."""
        count = max(1, min([count, len(self.units), *(pool.actors for pool in self.pools)]))
        return [
            replace(
                self,
                units=self.units[number::count],
                pools=tuple(replace(pool, bundles=pool.bundles[number::count]) for pool in self.pools),
            )
            for number in range(count)
        ]

    def receipts(self) -> Iterator[dict]:
        """One for every part written: its rows by status, and the seconds its photos took by stage.

        Whatever dies on the way (a task, an actor, a node), Ray runs again; a receipt means that rows are on storage.
        """
        rows = [dataclasses.asdict(unit) for unit in self.units]
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            functools.partial(
                _load,
                manifest=self.manifest,
                options=self.load,
                tried_again=self.tried_again,
                breaker=self.breaker,
                pulse=self.pulse,
            ),
            batch_format="pyarrow",
            num_cpus=LOADER_CPUS,
        )
        for pool in self.pools:
            answers = _in_pool(answers, pool, self.pulse, self.group)
        first = self.pools[0]
        writers = 1 + first.actors // 8
        receipts = answers.map_batches(
            _Writer,
            fn_constructor_args=(self.parts, self.finish, self.pulse),
            batch_format="pyarrow",
            batch_size=self.part_rows,
            compute=ray.data.ActorPoolStrategy(size=writers),
            num_cpus=TOKEN_CPUS,
            ray_remote_args_fn=InBundles(
                self.group, [first.bundles[n * first.actors // writers] for n in range(writers)]
            ),
        )
        return receipts.iter_rows()


def receipts_of(lanes: Sequence[Lane], again: Callable[[Lane], Lane]) -> Iterator[tuple[int, dict]]:
    """Of all of them, each with its lane's number, as they come. One lane alone is this process's.

    Where the process of one is lost, or its node, the others go on, and another takes up what ``again`` says is left of it.
    """
    if len(lanes) == 1:
        yield from ((0, receipt) for receipt in lanes[0].receipts())
        return
    running, in_vain = {}, Counter()
    with contextlib.ExitStack() as stack:

        def start(number: int, lane: Lane) -> None:
            # where its first writer is too: in a bundle is room for both (plan.SPARE_CPUS), elsewhere it might be a loading task's
            at = PlacementGroupSchedulingStrategy(lane.group, lane.pools[0].bundles[0])
            actor = _LaneActor.options(scheduling_strategy=at).remote()
            stack.enter_context(alive(actor))
            running[actor.receipts.remote(lane, len(lanes))] = number, actor

        for number, lane in enumerate(lanes):
            start(number, lane)
        while running:
            [ready], _ = ray.wait(list(running), fetch_local=False)
            number, actor = running[ready]
            try:
                yield number, ray.get(next(ready))
                in_vain[number] = 0
            except StopIteration:
                del running[ready]
            except (ray.exceptions.RayActorError, ray.exceptions.OwnerDiedError):
                ray.kill(actor)  # which may merely be out of reach
                in_vain[number] += 1
                if in_vain[number] == LOST_IN_VAIN:
                    raise
                del running[ready]
                left = again(lanes[number])
                log.warning("Lane %d was lost; another takes up its %s photos", number + 1, f"{left.photos:,}")
                if left.units:
                    start(number, left)


@ray.remote(num_cpus=TOKEN_CPUS)
class _LaneActor:
    @ray.method(num_returns="streaming")
    def receipts(self, lane: Lane, lanes: int) -> Iterator[dict]:
        connect()
        limits = ray.data.ExecutionResources.from_resource_dict(ray.cluster_resources())
        share = {"cpu": limits.cpu / lanes, "object_store_memory": STORE_SHARE * limits.object_store_memory / lanes}
        options = ray.data.DataContext.get_current().execution_options
        options.resource_limits = ray.data.ExecutionResources.for_limits(**share)
        try:
            yield from lane.receipts()
        except ray.exceptions.RayError as error:
            raise reason_of(error) from error  # which is not told of its causes on the way


@contextlib.contextmanager
def alive(*actors: ray.actor.ActorHandle) -> Iterator[None]:
    """Meanwhile. Ray would keep them, a process each, as long as the driver."""
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            for actor in actors:
                ray.kill(actor)


def _in_pool(
    rows: ray.data.Dataset, pool: Pool, pulse: ray.actor.ActorHandle, group: PlacementGroup
) -> ray.data.Dataset:
    """A stage of actors, as many from first to last, because a model takes long to load."""
    return rows.map_batches(
        ModelActor,
        fn_constructor_args=(pool.stage.build, pool.device, pool.threads_each, pool.stage.name, pulse),
        batch_format="pyarrow",
        batch_size=pool.batch_size,
        compute=ray.data.ActorPoolStrategy(
            size=pool.actors,
            max_concurrent_calls_per_actor=pool.calls,
            enable_true_multi_threading=pool.calls > 1,
        ),
        num_cpus=pool.cpus_each,
        num_gpus=pool.gpus_each or None,
        ray_remote_args_fn=InBundles(group, pool.bundles),
    )


def _load(
    units: pa.Table,
    manifest: ray.ObjectRef,
    options: LoadOptions,
    tried_again: ray.ObjectRef,
    breaker: ray.actor.ActorHandle,
    pulse: ray.actor.ActorHandle,
) -> Iterator[pa.Table]:
    listing, failed_before = ray.get(manifest), ray.get(tried_again)
    told, seen, kinds = 0.0, 0, Counter()
    for unit in (Unit(**row) for row in units.to_pylist()):
        pending = unit.pending(listing)
        for batch in _loader(options).load(pending):
            fresh = batch["error_kind"].filter(pa.array(~np.isin(batch["id"].to_numpy(), failed_before)))
            seen += len(fresh)
            kinds.update(kind for kind in fresh.to_pylist() if kind in OUT_OF_REACH)
            if seen >= TOLD_ROWS or time.monotonic() - told >= TOLD_S:
                told = time.monotonic()
                pulse.beat.remote(LOADING, f"ended a batch of {batch.num_rows}")
                _tell(breaker, seen, kinds)
                seen, kinds = 0, Counter()
            yield batch
        count_fetched(pc.sum(pending["size"]).as_py() or 0)
    _tell(breaker, seen, kinds)


def _tell(breaker: ray.actor.ActorHandle, photos: int, kinds: Counter) -> None:
    """Raises SourceFailingError."""
    if photos and (reason := ray.get(breaker.add.remote(photos, dict(kinds)))):
        raise SourceFailingError(reason)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)  # where its node is lost, another counts anew
class Breaker:
    """What all loading tasks together have seen of late."""

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._recent: deque[tuple[int, Counter]] = deque()

    def add(self, photos: int, failures: dict[str, int]) -> str | None:
        """Count photos, and those of them that could not be had, by kind. Returns why to stop, if so."""
        self._recent.append((photos, Counter(failures)))
        while sum(n for n, _ in self._recent) - self._recent[0][0] >= RECENT:
            self._recent.popleft()
        total, kinds = sum(n for n, _ in self._recent), sum((kinds for _, kinds in self._recent), Counter())
        if total < RECENT or kinds.total() <= self._max_share * total:
            return None
        counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
        return (
            f"{kinds.total():,} of the last {total:,} photos could not be had ({counts}): stopped; put it right and run the same "
            f"command again (--max-failing-share {self._max_share:g})"
        )


@functools.lru_cache(maxsize=1)
def _loader(options: LoadOptions) -> PhotoLoader:
    """The worker process keeps it, with its connections, from task to task."""
    return PhotoLoader(options)


class _Writer:
    def __init__(
        self, parts: Parts, finish: Callable[[pa.Table], pa.Table] | None, pulse: ray.actor.ActorHandle
    ) -> None:
        self._parts, self._finish, self._pulse = parts, finish, pulse

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._write(self._finish(batch) if self._finish else batch)
        self._pulse.beat.remote(WRITING, f"wrote a part of {batch.num_rows}")
        statuses = {entry["values"]: entry["counts"] for entry in batch["status"].value_counts().to_pylist()}
        seconds = {name: [float(np.nansum(batch[name].to_numpy()))] for name in SECONDS if name in batch.column_names}
        return pa.table({"statuses": [json.dumps(statuses)]} | seconds)

    def _write(self, rows: pa.Table) -> None:
        """With patience for a store that is out of order. Raises UsageError where it stays so, or is full."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._parts.add(rows)
                return
            except UsageError:
                raise
            except Exception as error:  # there is no list of all that a store may say
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"OUTPUT {self._parts.folder.uri}: cannot write there for {PATIENCE_S / 60:.0f} minutes ({describe(error)})"
                    ) from error
                self._pulse.beat.remote(WRITING, f"cannot write ({describe(error)}), and tries again")
            time.sleep(AGAIN_S)
