"""The Ray cluster a job runs on."""

import contextlib
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import ray

# Ray tells nobody else where it notes its cluster's address, nor what is free on which node
from ray._common.utils import get_ray_address_file
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from geoloc.errors import UsageError
from geoloc.pipeline.lease import LEASE
from geoloc.pipeline.plan import Node
from geoloc.storage import Folder, is_s3, path_of

log = logging.getLogger("geoloc")

ANSWER_S = 5
"""That a cluster has to answer in."""
SHARED_S = 5
"""Until a new file is seen by all who mount a shared file system."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS, or ``ray job submit``, or a running ``ray start`` names; else start one here.

    Raises UsageError where the cluster that is named does not answer, or does not let us in.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do anyway, and warns of until then
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own remarks on Ray Data's actors
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    warnings.filterwarnings("ignore", message=".*ray_remote_args_fn")  # geoloc.pipeline.placement
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")  # of an archive of few photos
    if not ray.is_initialized():
        address = _address()
        try:
            with _without_remarks():
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise UsageError(
                f"RAY_ADDRESS {os.environ.get('RAY_ADDRESS', 'auto')}: a Ray cluster is there and does not let us in; if it asks "
                "for a token, set RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token"
            ) from error
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


def check_seen(output: Folder, places: Mapping[str, str | Sequence[str] | None]) -> None:
    """That every node sees the local paths, by the options' names, that a job uses there: a file on one node's own disk is lost to
    the others. ``output`` is held (geoloc.pipeline.lease). Comes after the nodes have been waited for (Placement).

    Raises UsageError, naming the option and the nodes.
    """
    named = {"OUTPUT": (output / LEASE).uri} | {option: place for option, place in places.items() if place}
    local = [
        (option, place)
        for option, found in named.items()
        for place in ([found] if isinstance(found, str) else found)
        if not is_s3(place)
    ]
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not local or all(node["NodeID"] == ray.get_runtime_context().get_node_id() for node in nodes):
        return
    asked = [
        _unseen.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(local)
        for node in nodes
    ]
    blind: dict[tuple[str, str], list[str]] = {}
    for node, unseen in zip(nodes, ray.get(asked), strict=True):
        for one in unseen:
            blind.setdefault(one, []).append(node["NodeName"])
    for (option, place), names in blind.items():
        raise UsageError(
            f"{option} {place}: {len(names)} of {len(nodes)} nodes do not see it ({', '.join(names[:3])}"
            f"{', …' if len(names) > 3 else ''}); give a bucket, or a file system that every node mounts there"
        )


@ray.remote(num_cpus=0)
def _unseen(paths: list[tuple[str, str]]) -> list[tuple[str, str]]:
    deadline = time.monotonic() + SHARED_S
    while True:
        unseen = [(option, path) for option, path in paths if not os.path.lexists(path_of(path))]
        if not unseen or time.monotonic() > deadline:
            return unseen
        time.sleep(0.5)


def cluster_nodes() -> list[Node]:
    """Those that are alive, with all that they have."""
    return [_node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def nodes_for(groups: Iterable[PlacementGroup]) -> list[Node]:
    """Those that are alive, with the GPUs that are free or these groups', and all their CPUs, which loading tasks come to and go
    from."""
    gpus = {name: resources.get("GPU", 0) for name, resources in available_resources_per_node().items()}
    for table in map(placement_group_table, groups):
        for number, name in table["bundles_to_node_id"].items():
            gpus[name] = gpus.get(name, 0) + table["bundles"][number].get("GPU", 0)
    alive = [node for node in ray.nodes() if node["Alive"]]
    return [_node(node["Resources"] | {"GPU": gpus.get(node["NodeID"], 0)}, node["Labels"]) for node in alive]


def free_nodes() -> list[Node]:
    """Those that are alive, with what nobody uses of them now."""
    free = available_resources_per_node()
    return [_node(free.get(node["NodeID"], {}), node["Labels"]) for node in ray.nodes() if node["Alive"]]


def _node(resources: Mapping[str, float], labels: Mapping[str, str]) -> Node:
    return Node(resources.get("CPU", 0), int(resources.get("GPU", 0)), labels)


def describe_free() -> str:
    """In words."""
    there, free = ray.cluster_resources(), ray.available_resources()
    return " and ".join(f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
