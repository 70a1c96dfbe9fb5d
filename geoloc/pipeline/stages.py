"""The stream: from a manifest through loading tasks and stages of actors to parts. What they do is in Ray-free objects.

Loading tasks and the writer import this module in processes of their own, so it does without torch.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.util.placement_group import PlacementGroup

from geoloc.errors import ACCESS, SourceFailingError, UsageError, reason_of
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.pipeline.metrics import Metrics, count_fetched
from geoloc.pipeline.models import ModelActor
from geoloc.pipeline.placement import InBundles, Placement
from geoloc.pipeline.plan import LOADER_CPUS, TOKEN_CPUS, Pool
from geoloc.pipeline.progress import Progress
from geoloc.pipeline.run import Run, Unit
from geoloc.pipeline.status import told
from geoloc.pipeline.watch import Pulse, interrupted_by, stalled
from geoloc.results.parts import Parts
from geoloc.schema import SECONDS
from geoloc.storage import describe

log = logging.getLogger("geoloc")

LOADING, WRITING = "loading", "writing"
SPENT_BY = {"generator": "generate_s"}
"""Of the stages behind the first; the others rank."""
PATIENCE_S, AGAIN_S = 600, 5
"""That a store may be out of order, and between two attempts to write to it."""
RECENT = 1_000
"""Photos that the share of failures is taken of."""
OUT_OF_REACH = frozenset((*ACCESS, "network", "throttled")) - {"archived"}
"""Kinds of failure that say something of the source, not of a photo."""


@dataclasses.dataclass
class Work:
    """What a run did in this process's life."""

    photos: int = 0
    seconds: float = 0.0
    first_photos: int = 0
    """Of the first part that was written, and the seconds until then: start-up is in them."""
    first_seconds: float = 0.0
    rate: float = 0.0
    """Photos a second after that; of all, where that was all."""
    stage_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Seconds that all workers together spent, by stage."""
    workers: dict[str, int] = dataclasses.field(default_factory=dict)
    """That spent them side by side: of fetching, requests."""
    gpus: int = 0

    def lines(self) -> list[str]:
        if not self.photos:
            return []
        stages = ", ".join(f"{name.removesuffix('_s')} {s:.1f} s" for name, s in self.stage_seconds.items() if s)
        return [f"{self.photos:,} photos in {self.seconds:.1f} s: {self.pace()}; summed over workers: {stages}"]

    def pace(self) -> str:
        if self.first_photos == self.photos:
            return f"{self.rate:.1f} photos/s, start-up included"
        first = f"{self.first_seconds:.1f} s until the first {self.first_photos:,}"
        return f"{first}, start-up included, then {self.rate:.1f} photos/s"


@dataclasses.dataclass(frozen=True)
class Stream:
    """What is left of a run, from its manifest to its parts."""

    run: Run
    load: LoadOptions
    placement: Placement
    """Of the stages of actors, in their order."""
    finish: Callable[[pa.Table], pa.Table] | None = None
    """Last touch before a part is written."""
    max_failing_share: float = 1.0
    """Of the last RECENT photos: more that cannot be had stop the work."""
    max_part_rows: int = 25_000
    """Rows of the largest results file; a small archive has smaller ones."""

    def work(self) -> Work:
        """Do it, showing progress. Raises SourceFailingError, StalledError, and UsageError where there is no space left."""
        units, left = self.run.pending()
        work = Work()
        if not left:
            return work
        log.info("To do: %s photos; %s", f"{left:,}", self.placement.plan.describe())
        progress, part_rows = Progress(left), int(np.clip(left // 64, 64, self.max_part_rows))
        metrics = Metrics(self.run.folder.uri, left)
        try:
            with told(self.run.folder, "working through photos", progress.record):
                while units and not self._through(units, part_rows, progress, metrics, work):
                    self.placement.adapt()
                    self.run.parts.remove_drafts()
                    units, still = self.run.pending()
                    progress.found_done(left - still)
                    metrics.set_left(still)
                    log.info("Laid out anew: %s photos are left; %s", f"{still:,}", self.placement.plan.describe())
        except ray.exceptions.RayError as error:
            raise reason_of(error) from error
        finally:
            progress.close()
            work.photos = progress.photos
            work.seconds, work.rate = progress.seconds, progress.rate
            work.first_seconds, work.first_photos = progress.first
            work.workers, work.gpus = self._workers(), self.placement.plan.gpus
        return work

    def _workers(self) -> dict[str, int]:
        plan = self.placement.plan
        loaders = max(1, plan.loaders)
        workers = {"fetch_s": loaders * self.load.fetch.concurrency, "decode_s": loaders}
        first, *others = plan.pools
        workers |= {"embed_s": first.actors, "retrieve_s": first.actors}
        return workers | {SPENT_BY.get(pool.stage.name, "rank_s"): pool.actors for pool in others}

    def _through(self, units: list[Unit], part_rows: int, progress: Progress, metrics: Metrics, work: Work) -> bool:
        """Whether all of it was done; what was not is to be done on other nodes."""
        pulse = Pulse.remote([LOADING, *(pool.stage.name for pool in self.placement.plan.pools), WRITING])
        breaker = _Breaker.remote(self.max_failing_share)

        def find() -> Exception | None:
            if reason := self.placement.change():
                return _ClusterChangedError(reason)
            return stalled(pulse, self.placement.options.stall_minutes)

        with _alive(pulse, breaker), self.placement.reserved() as group:
            try:
                with interrupted_by(find):
                    for receipt in self._receipts(units, part_rows, pulse, breaker, group):
                        statuses = json.loads(receipt.pop("statuses"))
                        progress.add(statuses)
                        metrics.add(statuses, receipt)
                        for name, seconds in receipt.items():
                            work.stage_seconds[name] = work.stage_seconds.get(name, 0) + seconds
            except _ClusterChangedError as change:
                log.info(
                    "Stopped to lay the work out anew: %s (--adapt-minutes %g)",
                    change,
                    self.placement.options.adapt_minutes,
                )
                return False
        return True

    def _receipts(
        self,
        units: list[Unit],
        part_rows: int,
        pulse: ray.actor.ActorHandle,
        breaker: ray.actor.ActorHandle,
        group: PlacementGroup,
    ) -> Iterator[dict]:
        """One for every part written: its rows by status, and the seconds its photos took by stage.

        Whatever dies on the way (a task, an actor, a node), Ray runs again; a receipt means that rows are on storage.
        """
        rows = [dataclasses.asdict(unit) for unit in units]
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            functools.partial(
                _load,
                manifest=ray.put(self.run.manifest),
                options=self.load,
                tried_again=ray.put(self.run.tried_again),
                breaker=breaker,
                pulse=pulse,
            ),
            batch_format="pyarrow",
            num_cpus=LOADER_CPUS,
        )
        pools, bundles = self.placement.plan.pools, self.placement.plan.bundles
        for pool in pools:
            answers = _in_pool(answers, pool, pulse, group)
        writers = 1 + pools[0].actors // 8
        receipts = answers.map_batches(
            _Writer,
            fn_constructor_args=(self.run.parts, self.finish, pulse),
            batch_format="pyarrow",
            batch_size=part_rows,
            compute=ray.data.ActorPoolStrategy(size=writers),
            num_cpus=TOKEN_CPUS,
            ray_remote_args_fn=InBundles(group, [n * len(bundles) // writers for n in range(writers)]),
        )
        return receipts.iter_rows()


@contextlib.contextmanager
def _alive(*actors: ray.actor.ActorHandle) -> Iterator[None]:
    """Meanwhile. Ray would keep them, a process each, as long as the driver."""
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # the cluster may be gone
            for actor in actors:
                ray.kill(actor)


class _ClusterChangedError(Exception):
    """So much that the work is laid out anew."""


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
    for unit in (Unit(**row) for row in units.to_pylist()):
        pending = unit.pending(listing)
        for batch in _loader(options).load(pending):
            fresh = batch["error_kind"].filter(pa.array(~np.isin(batch["id"].to_numpy(), failed_before)))
            kinds = {kind: count for kind, count in Counter(fresh.to_pylist()).items() if kind in OUT_OF_REACH}
            if len(fresh) and (reason := ray.get(breaker.add.remote(len(fresh), kinds))):
                raise SourceFailingError(reason)
            pulse.beat.remote(LOADING, f"ended a batch of {batch.num_rows}")
            yield batch
        count_fetched(pc.sum(pending["size"]).as_py() or 0)


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)  # where its node is lost, another counts anew
class _Breaker:
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
