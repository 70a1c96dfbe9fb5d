"""The stream: from a manifest over lanes (geoloc.pipeline.lane) to parts, whatever nodes come and go."""

import dataclasses
import json
import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import ray
from ray.util.placement_group import PlacementGroup

from geoloc.errors import reason_of
from geoloc.photos.load import LoadOptions
from geoloc.pipeline.lane import LOADING, WRITING, Breaker, Lane, alive, receipts_of
from geoloc.pipeline.metrics import Metrics
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.progress import Progress
from geoloc.pipeline.run import Run, Unit
from geoloc.pipeline.status import told
from geoloc.pipeline.watch import Pulse, interrupted_by, stalled

log = logging.getLogger("geoloc")

SPENT_BY = {"generator": "generate_s"}
"""Of the stages behind the first; the others rank."""
LANE_GPUS, LANE_PHOTOS = 4, 1_000_000
"""Of a lane: so many GPUs and photos at least, where nobody says how many lanes there are to be."""


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
            progress.found_done(left)  # of a lane that was lost, some parts were not heard of
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
        breaker = Breaker.remote(self.max_failing_share)

        def find() -> Exception | None:
            if reason := self.placement.change():
                return _ClusterChangedError(reason)
            return stalled(pulse, self.placement.options.stall_minutes)

        with alive(pulse, breaker), self.placement.reserved() as group:
            try:
                with interrupted_by(find):
                    lanes = self._lanes(units, part_rows, pulse, breaker, group)
                    progress.begin_lanes([lane.photos for lane in lanes])
                    for lane, receipt in receipts_of(lanes, self._left_of):
                        statuses = json.loads(receipt.pop("statuses"))
                        progress.add(statuses, lane)
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

    def _left_of(self, lane: Lane) -> Lane:
        return dataclasses.replace(lane, units=self.run.left_of(lane.units))

    def _lanes(
        self,
        units: list[Unit],
        part_rows: int,
        pulse: ray.actor.ActorHandle,
        breaker: ray.actor.ActorHandle,
        group: PlacementGroup,
    ) -> list[Lane]:
        plan = self.placement.plan
        whole = Lane(
            units=units,
            pools=plan.pools,
            group=group,
            load=self.load,
            manifest=ray.put(self.run.manifest),
            tried_again=ray.put(self.run.tried_again),
            parts=self.run.parts,
            part_rows=part_rows,
            finish=self.finish,
            pulse=pulse,
            breaker=breaker,
        )
        if wanted := self.placement.options.lanes:
            return whole.split(wanted)
        return whole.split(max(1, min(plan.gpus // LANE_GPUS, whole.photos // LANE_PHOTOS)))


class _ClusterChangedError(Exception):
    """So much that the work is laid out anew."""
