"""The Ray cluster a job runs on, and how the job is laid out over it."""

import contextlib
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._common.utils import get_ray_address_file  # Ray tells nobody else where it notes its cluster's address

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions

log = logging.getLogger("geoloc")

ANSWER_S = 5
"""That a cluster has to answer in."""
LOADER_CPUS = 0.5
"""Of a loading task: half its time it waits for the store."""
MIN_CPUS = 1
RANKERS_A_RETRIEVER = 16
RETRIEVER_GPU, RETRIEVER_CPUS = 0.2, 0.25
"""Of a GPU, and of the models' CPUs, that retrieval has where there is a ranker."""
RANKER_PHOTOS = 16
"""Photos a ranker takes at once."""


@dataclass(frozen=True)
class Pool:
    """Processes that hold models."""

    actors: int
    gpus_each: float
    cpus_each: float
    threads_each: int
    batch_size: int

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_each else "cpu"

    def describe(self, what: str) -> str:
        where = f"{self.gpus_each:g} GPU each" if self.gpus_each else f"CPU, {self.threads_each} threads each"
        return (
            f"{self.actors} {what} {'actor' if self.actors == 1 else 'actors'} ({where}, batches of {self.batch_size})"
        )


@dataclass(frozen=True)
class Plan:
    models: Pool
    loaders: int
    """Loading tasks that find room beside the actors."""
    rankers: Pool | None = None

    def describe(self) -> str:
        rankers = f"{self.rankers.describe('ranker')}, " if self.rankers else ""
        return f"{self.models.describe('model')}, {rankers}room for {self.loaders} loading {'task' if self.loaders == 1 else 'tasks'}"


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


def make_plan(options: ClusterOptions, ranker: bool = False) -> Plan:
    """Lay the job out over the cluster; ``ranker``: with a pool of rankers behind the models that retrieve.

    Raises UsageError, instead of hanging, where the cluster lacks what the plan needs and does not grow to it within
    ``wait_minutes``.
    """
    each = options.gpus_per_actor
    if each < 1 or (options.gpus or 0) % each:
        raise UsageError(f"--gpus-per-actor {each}: must be at least 1 and divide --gpus {options.gpus}")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size {options.batch_size}: must be at least 1")
    deadline = time.monotonic() + 60 * options.wait_minutes
    while True:
        have = ray.cluster_resources()
        cpus, gpus = have.get("CPU", 0), int(have.get("GPU", 0))
        wanted = gpus // each * each if options.gpus is None else options.gpus
        if cpus >= MIN_CPUS and gpus >= wanted:
            break
        if time.monotonic() >= deadline:
            raise UsageError(
                f"the plan needs at least {MIN_CPUS:g} CPU and {wanted} GPU (--gpus), and the cluster has {cpus:g} CPU "
                f"and {gpus} GPU: add nodes, ask for fewer GPUs, or give it time to grow (--wait-minutes)"
            )
        time.sleep(2)
    if wanted:
        return _on_gpus(options, wanted, int(cpus / LOADER_CPUS), ranker)
    return _on_cpus(options, cpus, ranker)


def _on_gpus(options: ClusterOptions, gpus: int, loaders: int, ranker: bool) -> Plan:
    each = options.gpus_per_actor
    if not ranker:
        return Plan(Pool(gpus // each, each, 0, 4, options.batch_size or 256), loaders)
    if each == 1:  # every GPU ranks; a few of them retrieve on the side, which costs a hundredth of it
        models = Pool(-(-gpus // RANKERS_A_RETRIEVER), RETRIEVER_GPU, 0, 4, options.batch_size or 64)
        return Plan(models, loaders, Pool(gpus, 1 - RETRIEVER_GPU, 0, 4, RANKER_PHOTOS))
    if gpus <= each:
        raise UsageError(f"--gpus-per-actor {each}: leaves none of {gpus} GPUs to the ranker")
    return Plan(Pool(1, each, 0, 4, options.batch_size or 64), loaders, Pool(gpus - each, 1, 0, 4, RANKER_PHOTOS))


def _on_cpus(options: ClusterOptions, cpus: float, ranker: bool) -> Plan:
    """The models take most of the CPUs, and one loading task at least has room beside them."""
    actors = max(1, int(cpus) // 8)
    cpus_each = min(0.75 * cpus, cpus - LOADER_CPUS) / actors
    shares = (RETRIEVER_CPUS * cpus_each, (1 - RETRIEVER_CPUS) * cpus_each) if ranker else (cpus_each,)
    # Ray Data fuses a task into an actor that asks for the same, and loads nothing ahead
    shares = [share - 0.01 if share == LOADER_CPUS else share for share in shares]
    threads, loaders = max(1, int(cpus / actors)), int((cpus - actors * sum(shares)) / LOADER_CPUS)
    models = Pool(actors, 0, shares[0], threads, options.batch_size or 16 * threads)
    return Plan(models, loaders, Pool(actors, 0, shares[1], threads, RANKER_PHOTOS) if ranker else None)
