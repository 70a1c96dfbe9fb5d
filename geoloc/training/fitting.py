"""A training function on Ray Train: how many workers, where its checkpoints go, and what is seen of it meanwhile."""

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs

from geoloc.errors import StalledError, UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.run import check_same
from geoloc.recipes.stage import Stage
from geoloc.storage import Folder
from geoloc.threads import beside

if TYPE_CHECKING:
    from ray.train import Result
    from ray.train.torch import TorchTrainer

log = logging.getLogger("geoloc")

PROGRESS, SETTINGS = "progress.json", "settings.json"
TRAIN = "train"
"""Ray Train's folder, with its checkpoints, in that of the training."""
FAILURES = 3
"""Of which the last, from one checkpoint to the next, ends the training."""
WRITE_S, WATCH_S = 0.5, 5
"""Seconds between two writings, and two showings, of the progress."""


@dataclass(frozen=True)
class Team:
    """Training processes."""

    workers: int
    gpus: bool
    """Whether each has one; else they compute on CPUs."""
    fewest: int
    """That go on where nodes are lost, from the last checkpoint; those that come back are taken up again."""
    labels: dict[str, str] = field(default_factory=dict)
    """Of the nodes that they may be on."""

    def describe(self) -> str:
        return f"{self.workers} {'worker' if self.workers == 1 else 'workers'} on {'GPUs' if self.gpus else 'CPUs'}"

    def of(self, workers: int) -> "Team":
        """No more than so many."""
        return replace(self, workers=min(workers, self.workers), fewest=min(workers, self.fewest))

    def together(self) -> "Team":
        """All of them or none."""
        return replace(self, fewest=self.workers)


def settle(folder: Folder, settings: dict) -> None:
    """Write down what decides the result. Raises UsageError where ``folder`` has a training with other settings."""
    if folder.exists(SETTINGS):
        check_same(folder, json.loads(folder.read(SETTINGS)), json.loads(json.dumps(settings)))
    folder.write(SETTINGS, json.dumps(settings, indent=1).encode())


def team(workers: int | None, options: ClusterOptions) -> Team:
    """As many as are asked for, or one a GPU, or one. Raises UsageError where the cluster lacks the GPUs that are asked for, also
    after ``wait_minutes``."""
    from geoloc.pipeline.placement import Placement
    from geoloc.pipeline.plan import parse_labels

    gpus = Placement(options, [Stage("trainer", print)]).plan.gpus
    if gpus and workers and workers > gpus:
        raise UsageError(f"--workers {workers}: there are {gpus} GPUs for them (--gpus)")
    found = workers or max(1, gpus)
    fewest = min(found, options.min_gpus or 1) if gpus else found
    return Team(found, gpus > 0, fewest, parse_labels(options.label_selector))


def fit(worker: Callable[[], None], folder: Folder, team: Team, stall_minutes: float = 0) -> "Result":
    """Run it in every worker to its end, from the last checkpoint in ``folder`` where there is one.

    Of failures, a few are borne from checkpoint to checkpoint, and not in all: a long training on nodes that come and go has many.
    Raises UsageError for what went wrong in all workers alike (``in_all_workers``), and StalledError where the first worker has
    written nothing down for ``stall_minutes`` (0: never).
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    from geoloc.pipeline.watch import interrupted_by

    result, left, heard = None, FAILURES, _Heard(folder, stall_minutes)
    while result is None:
        before, rooms = _checkpoints(folder), _rooms()
        try:
            with interrupted_by(heard.nothing_new):
                result = _run(_trainer(worker, folder, team))
        except TrainingFailedError as error:
            _give_back(_rooms() - rooms)
            left = FAILURES if _checkpoints(folder) != before else left - 1
            if not left:
                raise
            log.warning(
                "The training failed and goes on from its last checkpoint: %s", " ".join(str(error).split())[:200]
            )
    if problem := (result.metrics or {}).get("problem"):
        raise UsageError(problem)
    return result


def _rooms() -> set[str]:
    """Placement groups of this job, by their ids."""
    import ray
    from ray.util.state import list_placement_groups

    job = ray.get_runtime_context().get_job_id()
    groups = list_placement_groups(filters=[("creator_job_id", "=", job)], limit=10_000, raise_on_missing_output=False)
    return {group.placement_group_id for group in groups if group.state != "REMOVED"}


def _give_back(rooms: set[str]) -> None:
    """Ray Train keeps the room of workers whose processes died until its job ends: the next try would wait for it."""
    from ray._raylet import PlacementGroupID
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for room in rooms:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(room)))


def _run(trainer: "TorchTrainer") -> "Result":
    try:
        return trainer.fit()
    except SystemExit as error:  # so Ray Train takes an interruption, with the status of a success
        raise KeyboardInterrupt from error


class _Heard:
    """What the first worker wrote down last, and when."""

    def __init__(self, folder: Folder, minutes: float) -> None:
        self._folder, self._minutes = folder, minutes
        self._last, self._when = b"", time.monotonic()

    def nothing_new(self) -> StalledError | None:
        with contextlib.suppress(OSError):
            now = self._folder.read(PROGRESS)
            if now != self._last:
                self._last, self._when = now, time.monotonic()
        quiet = (time.monotonic() - self._when) / 60
        if not self._minutes or quiet <= self._minutes:
            return None
        return StalledError(
            f"no step was done for {quiet:.0f} minutes (--stall-minutes {self._minutes:g}): either the workers have no GPU or "
            "CPU to be on, or a step takes longer. The same command goes on from here"
        )


def _trainer(worker: Callable[[], None], folder: Folder, team: Team) -> "TorchTrainer":
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem = None
    if not folder.is_local:
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(folder.filesystem))
    return TorchTrainer(
        functools.partial(_reporting, worker),
        scaling_config=ScalingConfig(
            label_selector=team.labels or None,
            num_workers=team.workers if team.fewest == team.workers else (team.fewest, team.workers),
            use_gpu=team.gpus,
            resources_per_worker={"CPU": 0.5} | ({"GPU": 1} if team.gpus else {}),
        ),
        run_config=RunConfig(
            name=TRAIN,
            storage_path=folder.path(),
            storage_filesystem=filesystem,
            # Ray Train counts those of the whole run, and its controller's not at all
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )


def _checkpoints(folder: Folder) -> bytes:
    """Ray Train's own list of them."""
    name = "checkpoint_manager_snapshot.json"
    return (folder / TRAIN).read(name) if (folder / TRAIN).exists(name) else b""


def _reporting(worker: Callable[[], None]) -> None:
    with contextlib.suppress(_ReportedError):
        worker()


class _ReportedError(Exception):
    """What is wrong has been reported."""


@contextlib.contextmanager
def in_all_workers() -> Iterator[None]:
    """What goes wrong in here does so in every worker, and the user has to put it right: it is reported, where Ray Train would take
    an exception for a fault of the machine, and try again. What one worker meets alone is left to Ray Train, which stops the
    others."""
    import ray.train

    try:
        yield
    except UsageError as error:
        ray.train.report({"problem": str(error)})
        raise _ReportedError from error


def resumed(load: Callable[[Path], int]) -> int:
    """The steps that have been done, by the checkpoint that Ray Train has for this worker: what ``load`` makes of its folder."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as directory:
        return load(Path(directory))


class Diary:
    """Where the first worker writes down how far it is."""

    def __init__(self, folder: Folder, first: int, steps: int) -> None:
        self._folder, self._first, self._steps = folder, first, steps
        self._started = self._written = time.monotonic()

    def write(self, done: int, curves: dict[str, list]) -> None:
        """After ``done`` steps, unless it wrote a moment ago."""
        now = time.monotonic()
        if now - self._written > WRITE_S or done == self._steps:
            self._written = now
            rate = (done - self._first) / (now - self._started)
            self._folder.write(PROGRESS, json.dumps({"step": done, "steps_per_s": rate} | curves).encode())


@contextlib.contextmanager
def watched(folder: Folder, steps: int, describe: Callable[[dict], str]) -> Iterator[None]:
    """Meanwhile, show the progress that the first worker writes down; ``describe`` its newest point."""
    with beside(functools.partial(_watch, folder, steps, describe), "training"):
        yield


def _watch(folder: Folder, steps: int, describe: Callable[[dict], str], stop: threading.Event) -> None:
    shown = None
    while not stop.wait(WATCH_S):
        try:
            now = json.loads(folder.read(PROGRESS))
        except (OSError, ValueError):
            continue
        if now["step"] != shown and now["history"]:
            shown = now["step"]
            left = timedelta(seconds=round((steps - shown) / max(now["steps_per_s"], 1e-9)))
            log.info(
                "step %s of %s · %s · %.1f steps/s · %s left",
                f"{shown:,}",
                f"{steps:,}",
                describe(now["history"][-1]),
                now["steps_per_s"],
                left,
            )
