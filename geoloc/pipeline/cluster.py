"""The Ray cluster a job runs on, and how the job is laid out over it."""

import contextlib
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
import ray.autoscaler.sdk
from ray._common.utils import get_ray_address_file  # Ray tells nobody else where it notes its cluster's address

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.plan import Node, Plan, check_options, lay_out
from geoloc.recipes.stage import Stage

log = logging.getLogger("geoloc")

ANSWER_S = 5
"""That a cluster has to answer in."""
POLL_S = 2
"""Between two looks at a cluster that is to grow."""


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
    """Lay a job's stages out over the cluster's nodes, and say so.

    A cluster that is to grow (``wait_minutes``) is asked for the GPUs that are wanted and waited for; where none are named, any
    that come in that time are used.

    Raises UsageError, instead of hanging, where the cluster lacks what the plan needs.
    """
    check_options(options)
    deadline = time.monotonic() + 60 * options.wait_minutes
    if not (options.gpus and options.wait_minutes):
        return _wait_for_room(options, stages, deadline)
    _ask_autoscaler([{"GPU": options.gpus_per_actor}] * (options.gpus // options.gpus_per_actor))
    try:
        return _wait_for_room(options, stages, deadline)
    finally:
        _ask_autoscaler([])  # it would hold the nodes for ever; actors hold them as long as they live


def _wait_for_room(options: ClusterOptions, stages: Sequence[Stage], deadline: float) -> Plan:
    announced = False
    while True:
        nodes, late = cluster_nodes(), time.monotonic() >= deadline
        may_come = options.gpus is None and not any(node.gpus for node in nodes)
        try:
            if late or not may_come:
                return lay_out(options, stages, nodes)
        except UsageError:
            if late:
                raise
        if not announced:
            log.info("Waiting up to %g minutes for the cluster to grow (--wait-minutes)", options.wait_minutes)
            announced = True
        time.sleep(POLL_S)


def cluster_nodes() -> list[Node]:
    """Those that are alive."""
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [Node(resources.get("CPU", 0), int(resources.get("GPU", 0))) for resources in alive]


def _ask_autoscaler(bundles: list[dict]) -> None:
    """For nodes with room for these; a cluster without an autoscaler takes no notice."""
    ray.autoscaler.sdk.request_resources(bundles=bundles)
