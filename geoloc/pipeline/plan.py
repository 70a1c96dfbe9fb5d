"""How a job's stages are laid out over the nodes of a cluster. Without Ray: what is planned here for nodes that are made up is
what runs on real ones.

An actor has its CPUs and GPUs on one node, and all of a pool's actors ask for the same, so what counts is what each node has,
not what the cluster has in all. Loading tasks, which feed the actors, have to find room beside them.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.recipes.stage import Stage

LOADER_CPUS = 0.5
"""Of a loading task: half its time it waits for the store."""
CPUS_AN_ACTOR = 8
"""Where models run on CPUs: with more threads a photo each, an actor gains little."""
MODELS_SHARE = 0.75
"""Of a node's CPUs, that models have where they run on them."""
NEARLY = 0.9
GPU_THREADS = 4
"""Of an actor on a GPU."""


@dataclass(frozen=True)
class Node:
    cpus: float
    gpus: int = 0

    @property
    def room(self) -> float:
        """CPUs for models, where they run on CPUs."""
        return min(MODELS_SHARE * self.cpus, self.cpus - LOADER_CPUS)


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


def check_options(options: ClusterOptions) -> None:
    """Raises UsageError."""
    each = options.gpus_per_actor
    if each < 1 or (options.gpus or 0) % each:
        raise UsageError(f"--gpus-per-actor {each}: must be at least 1 and divide --gpus {options.gpus}")
    for name in ("batch_size", "cpus_per_gpu", "stall_minutes", "wait_minutes"):
        value = getattr(options, name)
        if value is not None and value < (1 if name == "batch_size" else 0):
            raise UsageError(
                f"--{name.replace('_', '-')} {value:g}: must be at least {1 if name == 'batch_size' else 0}"
            )


def lay_out(options: ClusterOptions, stages: Sequence[Stage], nodes: Sequence[Node]) -> Plan:
    """The stages on these nodes, by what they say they want of a device.

    On GPUs the costliest stage has an actor on each, the others as many as keep up with it. On CPUs every stage has as many
    actors as the others: what it costs shows in its share of them.

    Raises UsageError, naming what there is and what would do, where the plan finds no room.
    """
    gpus = _gpus(options, nodes)
    pools = _on_gpus(options, stages, nodes, gpus) if gpus else _on_cpus(stages, nodes)
    if options.batch_size is not None:
        pools[0] = dataclasses.replace(pools[0], batch_size=options.batch_size)
    plan = Plan(tuple(pools), _loaders(pools, nodes))
    if not plan.loaders:
        raise UsageError(
            f"the plan ({plan.describe()}) leaves no room for loading photos, which takes {LOADER_CPUS:g} CPU on one node; "
            f"there {_are(nodes)}: add a node with CPUs, or give a GPU's actors fewer of them (--cpus-per-gpu)"
        )
    return plan


def _gpus(options: ClusterOptions, nodes: Sequence[Node]) -> int:
    """How many are used: all that actors find together on one node, unless fewer are asked for."""
    each, there = options.gpus_per_actor, sum(node.gpus for node in nodes)
    usable = sum(node.gpus // each * each for node in nodes)
    wanted = usable if options.gpus is None else options.gpus
    if usable < wanted or (there and not usable):
        raise UsageError(
            f"--gpus {wanted or each}, {each} an actor (--gpus-per-actor): there {_are(nodes)}, where {usable // each} actors "
            f"find their GPUs on one node; it takes nodes of {each} GPU or more, {max(wanted, each)} in all"
        )
    return wanted


def _on_gpus(options: ClusterOptions, stages: Sequence[Stage], nodes: Sequence[Node], gpus: int) -> list[Pool]:
    each, cpus = options.gpus_per_actor, _cpus_a_gpu(options, nodes)
    if len(stages) == 1:
        return [_gpu_pool(stages[0], gpus // each, each, cpus)]
    if each == 1:
        return _side_by_side(stages, gpus, cpus)
    # a whole index has GPUs of its own, and the rest is for the others
    others = [stage for stage in stages if not stage.whole_index]
    left = gpus - each * (len(stages) - len(others))
    if left < 1:
        names = ", ".join(stage.name for stage in others)
        raise UsageError(f"--gpus-per-actor {each}: leaves none of {gpus} GPUs to the {names}")
    pools = iter(_side_by_side(others, left, cpus))
    return [_gpu_pool(stage, 1, each, cpus) if stage.whole_index else next(pools) for stage in stages]


def _side_by_side(stages: Sequence[Stage], gpus: int, cpus: float) -> list[Pool]:
    """Stages that share GPUs. Two cheap actors on one GPU would leave too little of it to the costliest; Ray Data spreads a
    pool's actors over the nodes, and there are no more of the cheap ones than nodes as long as they cost so much less."""
    costliest, shares = max(stage.cost for stage in stages), sum(stage.share for stage in stages)
    return [_gpu_pool(stage, math.ceil(gpus * stage.cost / costliest), stage.share / shares, cpus) for stage in stages]


def _gpu_pool(stage: Stage, actors: int, gpus_each: float, cpus_a_gpu: float) -> Pool:
    return Pool(stage, actors, gpus_each, gpus_each * cpus_a_gpu, GPU_THREADS, stage.rows("cuda", GPU_THREADS))


def _cpus_a_gpu(options: ClusterOptions, nodes: Sequence[Node]) -> float:
    """As asked for, but never more than leave half of the poorest node's CPUs to loading."""
    return min(options.cpus_per_gpu, *(node.cpus / node.gpus / 2 for node in nodes if node.gpus))


def _on_cpus(stages: Sequence[Stage], nodes: Sequence[Node]) -> list[Pool]:
    """One actor of every stage side by side is a group; a group is on one node, and all groups are equal."""
    rooms = [node.room for node in nodes if node.cpus >= 2 * LOADER_CPUS]
    if not rooms:
        raise UsageError(
            f"models on CPUs need a node of {2 * LOADER_CPUS:g} CPU or more, and there {_are(nodes)}: add one, or nodes with "
            "GPUs (--wait-minutes gives a cluster time to grow)"
        )
    sizes = {room / math.ceil(room / (MODELS_SHARE * CPUS_AN_ACTOR)) for room in rooms}
    used = {size: size * _groups(rooms, size) for size in sizes}
    # the largest that is nearly as good as the best: every group holds the models once more
    size = max(size for size in sizes if used[size] >= NEARLY * max(used.values()))
    groups, total, pools = _groups(rooms, size), sum(stage.share for stage in stages), []
    threads = max(1, int(size / MODELS_SHARE))
    for stage in stages:
        cpus = size * stage.share / total
        # Ray Data fuses a task into an actor that asks for the same, and loads nothing ahead
        cpus -= 0.01 if cpus == LOADER_CPUS else 0
        pools.append(Pool(stage, groups, 0, cpus, threads, stage.rows("cpu", threads)))
    return pools


def _groups(rooms: Sequence[float], size: float) -> int:
    """How many of that size find room."""
    return sum(int(room / size + 1e-9) for room in rooms)


def _loaders(pools: Sequence[Pool], nodes: Sequence[Node]) -> int:
    """What is left beside the actors, when they lie as they fit."""
    left = [node.cpus for node in nodes]
    gpus = [float(node.gpus) for node in nodes]
    for pool in sorted(pools, key=lambda pool: -pool.gpus_each):
        for _ in range(pool.actors):
            at = [n for n in range(len(nodes)) if left[n] + 1e-9 >= pool.cpus_each and gpus[n] + 1e-9 >= pool.gpus_each]
            if not at:
                raise UsageError(
                    f"the plan needs {pool.describe()}, with {pool.cpus_each:.2g} CPU each on the same node, and there "
                    f"{_are(nodes)}: not all find room; add nodes, or ask for fewer GPUs (--gpus)"
                )
            chosen = max(at, key=lambda n: (gpus[n], left[n]))
            left[chosen] -= pool.cpus_each
            gpus[chosen] -= pool.gpus_each
    return sum(int(cpus / LOADER_CPUS + 1e-9) for cpus in left)


def _are(nodes: Sequence[Node]) -> str:
    """What there is, in words: equal nodes counted."""
    kinds: dict[str, int] = {}
    for node in nodes:
        what = f"{node.cpus:g} CPU" + (f" and {node.gpus} GPU" if node.gpus else "")
        kinds[what] = kinds.get(what, 0) + 1
    if not kinds:
        return "is no node"
    listed = ", ".join(f"{count} of {what}" for what, count in sorted(kinds.items()))
    return f"{'is one node' if len(nodes) == 1 else f'are {len(nodes)} nodes'}: {listed}"
