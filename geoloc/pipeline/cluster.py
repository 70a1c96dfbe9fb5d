"""The Ray cluster a job runs on, and how the job is laid out over it."""

import contextlib
import dataclasses
import logging
import math
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._common.utils import get_ray_address_file  # Ray tells nobody else where it notes its cluster's address

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.recipes.stage import Stage

log = logging.getLogger("geoloc")

ANSWER_S = 5
"""That a cluster has to answer in."""
LOADER_CPUS = 0.5
"""Of a loading task: half its time it waits for the store."""
MIN_CPUS = 1
GPU_THREADS = 4
"""Of an actor on a GPU."""
CPUS_AN_ACTOR = 8
"""Where models run on CPUs: with more threads a photo each, an actor gains little."""


@dataclass(frozen=True)
class Pool:
    """Processes that hold a stage's models."""

    stage: Stage
    actors: int
    gpus_each: float
    cpus_each: float
    threads_each: int
    batch_size: int

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_each else "cpu"

    def describe(self) -> str:
        where = f"{self.gpus_each:g} GPU each" if self.gpus_each else f"CPU, {self.threads_each} threads each"
        actors = f"{self.actors} {self.stage.name} {'actor' if self.actors == 1 else 'actors'}"
        return f"{actors} ({where}, batches of {self.batch_size})"


@dataclass(frozen=True)
class Plan:
    pools: tuple[Pool, ...]
    """One a stage, in their order."""
    loaders: int
    """Loading tasks that find room beside the actors."""

    def describe(self) -> str:
        pools = ", ".join(pool.describe() for pool in self.pools)
        return f"{pools}, room for {self.loaders} loading {'task' if self.loaders == 1 else 'tasks'}"


def connect() -> None:
    """Join the cluster that RAY_ADDRESS, or ``ray job submit``, or a running ``ray start`` names; else start one here.

    Raises UsageError where the cluster that is named does not answer.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do anyway, and warns of until then
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own remarks on Ray Data's actors
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    if not ray.is_initialized():
        address = _address()
        with _without_remarks():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    context = quiet_data()
    context.target_max_block_size = 32 << 20
    context.max_errored_blocks = 0
    context.actor_init_retry_on_errors = True
    context.max_consecutive_actor_init_deaths = 3


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Ray's core announces its log level on the standard error, past Python's logging; what goes wrong is raised besides."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _address() -> str | None:
    """For ``ray.init``, which would try for minutes to reach a cluster that is gone."""
    named = os.environ.get("RAY_ADDRESS")
    if named not in (None, "", "auto", "local"):
        if not _answers(named):
            raise UsageError(
                f"RAY_ADDRESS {named}: no Ray cluster answers there; start it, or unset RAY_ADDRESS to start one here"
            )
        return None
    left = Path(get_ray_address_file(None))
    try:
        address = left.read_text().strip()
    except OSError:
        return None
    if address and not _answers(address):
        log.warning("A Ray cluster that is gone left its address in %s: starting one here (`ray stop` tidies up)", left)
        return "local"
    return None


def _answers(address: str) -> bool:
    """Whether something listens at ``host:port``, whatever scheme is before it."""
    host, _, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, ValueError):
        return False
    return True


def quiet_data() -> ray.data.DataContext:
    """This process's Ray Data, without its remarks; progress is for us to show, and what went wrong it raises besides."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.raise_original_map_exception = True  # Ray Data's own would keep from us what a task said
    return context


def make_plan(options: ClusterOptions, stages: Sequence[Stage]) -> Plan:
    """Lay a job's stages out over the cluster, by what they say they want of a device.

    Raises UsageError, instead of hanging, where the cluster lacks what the plan needs and does not grow to it within
    ``wait_minutes``.
    """
    each = options.gpus_per_actor
    if each < 1 or (options.gpus or 0) % each:
        raise UsageError(f"--gpus-per-actor {each}: must be at least 1 and divide --gpus {options.gpus}")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: must be at least 1")
    cpus, gpus = _resources(options)
    if gpus:
        pools, loaders = _on_gpus(options, stages, gpus), int(cpus / LOADER_CPUS)
    else:
        pools = _on_cpus(stages, cpus)
        loaders = int((cpus - sum(pool.actors * pool.cpus_each for pool in pools)) / LOADER_CPUS)
    if options.batch_size is not None:
        pools[0] = dataclasses.replace(pools[0], batch_size=options.batch_size)
    return Plan(tuple(pools), loaders)


def _resources(options: ClusterOptions) -> tuple[float, int]:
    """The cluster's CPUs, and the GPUs that are to be used; waits for them. Raises UsageError."""
    deadline = time.monotonic() + 60 * options.wait_minutes
    while True:
        have = ray.cluster_resources()
        cpus, gpus = have.get("CPU", 0), int(have.get("GPU", 0))
        each = options.gpus_per_actor
        wanted = gpus // each * each if options.gpus is None else options.gpus
        if cpus >= MIN_CPUS and gpus >= wanted:
            return cpus, wanted
        if time.monotonic() >= deadline:
            raise UsageError(
                f"the plan needs at least {MIN_CPUS:g} CPU and {wanted} GPU (--gpus), and the cluster has {cpus:g} CPU "
                f"and {gpus} GPU: add nodes, ask for fewer GPUs, or give it time to grow (--wait-minutes)"
            )
        time.sleep(2)


def _on_gpus(options: ClusterOptions, stages: Sequence[Stage], gpus: int) -> list[Pool]:
    """The costliest stage has an actor on every GPU, the others on as many as keep up with it."""
    each = options.gpus_per_actor
    if len(stages) == 1:
        return [_pool(stages[0], gpus // each, each)]
    if each > 1:  # a whole index has GPUs of its own
        holds = [stage for stage in stages if stage.whole_index]
        left = gpus - each * len(holds)
        if left < 1:
            beside = ", ".join(stage.name for stage in stages if not stage.whole_index)
            raise UsageError(f"--gpus-per-actor {each}: leaves none of {gpus} GPUs to the {beside}")
        others = iter(_side_by_side([stage for stage in stages if not stage.whole_index], left))
        return [_pool(stage, 1, each) if stage.whole_index else next(others) for stage in stages]
    return _side_by_side(stages, gpus)


def _side_by_side(stages: Sequence[Stage], gpus: int) -> list[Pool]:
    costliest, shares = max(stage.cost for stage in stages), sum(stage.share for stage in stages)
    return [_pool(stage, math.ceil(gpus * stage.cost / costliest), stage.share / shares) for stage in stages]


def _pool(stage: Stage, actors: int, gpus_each: float) -> Pool:
    return Pool(stage, actors, gpus_each, 0, GPU_THREADS, stage.rows("cuda", GPU_THREADS))


def _on_cpus(stages: Sequence[Stage], cpus: float) -> list[Pool]:
    """The models take most of the CPUs, and one loading task at least has room beside them."""
    actors = max(1, int(cpus) // CPUS_AN_ACTOR)
    cpus_each = min(0.75 * cpus, cpus - LOADER_CPUS) / actors
    threads, total, pools = max(1, int(cpus / actors)), sum(stage.share for stage in stages), []
    for stage in stages:
        cpus_of_stage = cpus_each * stage.share / total
        # Ray Data fuses a task into an actor that asks for the same, and loads nothing ahead
        cpus_of_stage -= 0.01 if cpus_of_stage == LOADER_CPUS else 0
        pools.append(Pool(stage, actors, 0, cpus_of_stage, threads, stage.rows("cpu", threads)))
    return pools
