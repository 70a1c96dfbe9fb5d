"""A training function on Ray Train: how many workers, where its checkpoints go, and what is seen of it meanwhile."""

import contextlib
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.fs

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.storage import Folder

if TYPE_CHECKING:
    from ray.train import Result

log = logging.getLogger("geoloc")

PROGRESS = "progress.json"
WRITE_S, WATCH_S = 0.5, 5
"""Seconds between two writings, and two showings, of the progress."""


def training_workers(workers: int | None, cluster: ClusterOptions) -> tuple[int, int]:
    """How many training processes, and how many GPUs there are for them, one each."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0)) if cluster.gpus is None else cluster.gpus
    return workers or max(1, gpus), gpus


def count(workers: int, gpus: int) -> str:
    return f"{workers} {'worker' if workers == 1 else 'workers'} on {'GPUs' if gpus else 'CPUs'}"


def fit(worker: Callable[[], None], folder: Folder, workers: int, gpus: int) -> "Result":
    """Run it in every worker to its end, from the last checkpoint in ``folder`` where there is one.

    Raises UsageError for what went wrong in all workers alike (``in_all_workers``).
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    filesystem = None
    if not folder.is_local:
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(folder.filesystem))
    trainer = TorchTrainer(
        functools.partial(_reporting, worker),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": 0.5} | ({"GPU": 1} if gpus else {})
        ),
        run_config=RunConfig(
            name="train",
            storage_path=folder.path(),
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    if problem := (result.metrics or {}).get("problem"):
        raise UsageError(problem)
    return result


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
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(folder, steps, describe, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
