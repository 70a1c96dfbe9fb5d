"""How a job's stages are laid out over the nodes of a cluster. Without Ray: what is planned here for nodes that are made up is
what runs on real ones.

A plan is bundles, each of which is CPUs and GPUs of one node, and actors in them: so which actors share a GPU is settled here,
and a bundle that finds no node shows before anything runs. Loading tasks, which feed the actors, have the CPUs that are left.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
TOKEN_CPUS = 0.01
"""Of what computes little, such as the actor that writes results: enough to be on a node that works, and not on the head."""
SPARE_CPUS = 2 * TOKEN_CPUS
"""Of a bundle, for such actors: one that writes, and one whose models are elsewhere, or one that is a lane."""


@dataclass(frozen=True)
class Node:
    cpus: float
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def room(self) -> float:
        """CPUs for models, where they run on CPUs."""
        return min(MODELS_SHARE * self.cpus, self.cpus - LOADER_CPUS)


@dataclass(frozen=True)
class Bundle:
    """What is reserved on one node."""

    cpus: float
    gpus: int = 0


@dataclass(frozen=True)
class Pool:
    """Processes that hold a stage's models."""

    stage: Stage
    bundles: tuple[int, ...]
    """The bundle that each of its actors is in."""
    gpus_each: float
    cpus_each: float
    threads_each: int
    batch_size: int

    @property
    def actors(self) -> int:
        return len(self.bundles)

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_each else "cpu"

    @property
    def calls(self) -> int:
        """Batches that an actor works on at once."""
        return self.stage.gpu_calls if self.gpus_each else self.stage.calls

    def describe(self) -> str:
        if self.stage.elsewhere:
            return f"1 {self.stage.name} actor (models elsewhere, batches of {self.batch_size})"
        where = f"{self.gpus_each:g} GPU each" if self.gpus_each else f"CPU, {self.threads_each} threads each"
        actors = f"{self.actors} {self.stage.name} {'actor' if self.actors == 1 else 'actors'}"
        return f"{actors} ({where}, batches of {self.batch_size})"


@dataclass(frozen=True)
class Plan:
    pools: tuple[Pool, ...]
    """One a stage, in their order."""
    bundles: tuple[Bundle, ...]
    loaders: int
    """Loading tasks that find room beside the actors."""

    @property
    def gpus(self) -> int:
        return sum(bundle.gpus for bundle in self.bundles)

    @property
    def cpus(self) -> float:
        """Of the models."""
        return sum(bundle.cpus for bundle in self.bundles)

    def describe(self) -> str:
        pools = ", ".join(pool.describe() for pool in self.pools)
        return f"{pools}, room for {self.loaders} loading {'task' if self.loaders == 1 else 'tasks'}"


def check_options(options: ClusterOptions) -> None:
    """Raises UsageError."""
    each, wanted, fewest = options.gpus_per_actor, options.gpus, options.min_gpus
    if each < 1 or (wanted or 0) % each:
        raise UsageError(f"--gpus-per-actor {each}: must be at least 1 and divide --gpus {wanted}")
    if fewest is not None and not (wanted and 1 <= fewest <= wanted and fewest % each == 0):
        raise UsageError(
            f"--min-gpus {fewest}: must be of --gpus {wanted}, and whole actors' (--gpus-per-actor {each})"
        )
    least = {"batch_size": 1, "lanes": 1, "cpus_per_gpu": 0, "stall_minutes": 0, "adapt_minutes": 0, "wait_minutes": 0}
    for name, fewest in least.items():
        value = getattr(options, name)
        if value is not None and value < fewest:
            raise UsageError(f"--{name.replace('_', '-')} {value:g}: must be at least {fewest}")
    parse_labels(options.label_selector)


def lay_out(
    options: ClusterOptions, stages: Sequence[Stage], nodes: Sequence[Node], at_least: int | None = None
) -> Plan:
    """The stages on these nodes, by what they say they want of a device.

    On GPUs the costliest stage has an actor on each, the others as many as keep up with it. On CPUs every stage has as many
    actors as the others: what it costs shows in its share of them.

    ``at_least`` so many GPUs will do where there are not as many as are wanted (None: all of them, or CPUs where there are none).

    Raises UsageError, naming what there is and what would do, where the plan finds no room.
    """
    selector = parse_labels(options.label_selector)
    able, others = [], []
    for node in nodes:
        (able if _fits(node.labels, selector) else others).append(_with_usable_gpus(node))
    if nodes and not able:
        known = sorted({f"{key}={value}" for node in nodes for key, value in node.labels.items()})
        raise UsageError(
            f"--label-selector {' '.join(options.label_selector)}: no node has that; there is {', '.join(known) or 'no label'}"
        )
    gpus = _gpus(options, able, at_least)
    here = [stage for stage in stages if not stage.elsewhere]
    bundles, pools = _on_gpus(options, here, able, gpus) if gpus else _on_cpus(here, able)
    of_those_here = iter(pools)
    pools = [_elsewhere(stage) if stage.elsewhere else next(of_those_here) for stage in stages]
    if options.batch_size is not None:
        pools[0] = dataclasses.replace(pools[0], batch_size=options.batch_size)
    plan = Plan(tuple(pools), tuple(bundles), _loaders(bundles, able, others))
    if not plan.loaders:
        raise UsageError(
            f"the plan ({plan.describe()}) leaves no room for loading photos, which takes {LOADER_CPUS:g} CPU on one node; "
            f"there {_are(nodes)}: add a node with CPUs, or give a GPU's actors fewer of them (--cpus-per-gpu)"
        )
    return plan


def _with_usable_gpus(node: Node) -> Node:
    """Nobody can be on a GPU whose node has no CPU for it, such as that of a head that is to do no work."""
    return node if node.cpus >= 2 * SPARE_CPUS * node.gpus else dataclasses.replace(node, gpus=0)


def parse_labels(selector: Sequence[str]) -> dict[str, str]:
    """``key=value`` as Ray takes them. Raises UsageError."""
    pairs = [text.partition("=") for text in selector]
    for text, (key, equals, value) in zip(selector, pairs, strict=True):
        if not (key and equals and value):
            raise UsageError(f"--label-selector {text}: is not KEY=VALUE, KEY=!VALUE or KEY=in(A,B)")
    return {key: value for key, _, value in pairs}


def _fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """By Ray's rules: a value, in(a,b) of them, and ! before either for none of them."""
    for key, condition in selector.items():
        values = condition.removeprefix("!")
        values = values[3:-1].split(",") if values.startswith("in(") and values.endswith(")") else [values]
        if (labels.get(key) in [value.strip() for value in values]) == condition.startswith("!"):
            return False
    return True


def _gpus(options: ClusterOptions, nodes: Sequence[Node], at_least: int | None) -> int:
    """How many are used: all that actors find together on one node, unless fewer are asked for."""
    each, there = options.gpus_per_actor, sum(node.gpus for node in nodes)
    usable = sum(node.gpus // each * each for node in nodes)
    wanted = usable if options.gpus is None else options.gpus
    needed = wanted if at_least is None else at_least
    if usable < needed or (there and options.gpus != 0 and not usable):
        raise UsageError(
            f"--gpus {needed or each}, {each} an actor (--gpus-per-actor): there {_are(nodes)}, where {usable // each} actors "
            f"find their GPUs on one node; it takes nodes of {each} GPU or more, {max(needed, each)} in all"
        )
    return min(usable, wanted)


def _on_gpus(
    options: ClusterOptions, stages: Sequence[Stage], nodes: Sequence[Node], gpus: int
) -> tuple[list[Bundle], list[Pool]]:
    each, cpus = options.gpus_per_actor, _cpus_a_gpu(options, nodes)
    alone = stages if len(stages) == 1 else [stage for stage in stages if stage.whole_index and each > 1]
    # a whole index has GPUs of its own, and the rest is for the others
    others = [stage for stage in stages if stage not in alone]
    left = gpus - each * len(alone) if others else 0
    if others and left < 1:
        names = ", ".join(stage.name for stage in others)
        raise UsageError(f"--gpus-per-actor {each}: leaves none of {gpus} GPUs to the {names}")
    large = Bundle(each * cpus, each)
    if not others:
        bundles = [large] * (gpus // each)
        return bundles, [_gpu_pool(stages[0], tuple(range(len(bundles))), each, cpus)]
    bundles, pools = [large] * len(alone) + [Bundle(cpus, 1)] * left, []
    costliest, shares = max(stage.cost for stage in others), sum(stage.share for stage in others)
    for stage in stages:
        if stage in alone:
            pools.append(_gpu_pool(stage, (alone.index(stage),), each, cpus))
            continue
        actors = math.ceil(left * stage.cost / costliest)
        shared = tuple(len(alone) + n * left // actors for n in range(actors))
        pools.append(_gpu_pool(stage, shared, stage.share / shares, cpus))
    return bundles, pools


def _elsewhere(stage: Stage) -> Pool:
    return Pool(stage, (0,), 0, TOKEN_CPUS, 1, stage.rows("cpu", 1))


def _gpu_pool(stage: Stage, bundles: tuple[int, ...], gpus_each: float, cpus_a_gpu: float) -> Pool:
    gpus_each = _rounded(gpus_each)
    cpus_each = _rounded(gpus_each * (cpus_a_gpu - SPARE_CPUS))
    return Pool(stage, bundles, gpus_each, cpus_each, GPU_THREADS, stage.rows("cuda", GPU_THREADS))


def _rounded(resources: float) -> float:
    """Down to what Ray counts in, so that shares together are never more than the whole."""
    return math.floor(resources * 10_000 + 1e-6) / 10_000


def _cpus_a_gpu(options: ClusterOptions, nodes: Sequence[Node]) -> float:
    """As asked for, but never more than leave half of the poorest node's CPUs to loading."""
    poorest = min(node.cpus / node.gpus / 2 for node in nodes if node.gpus)
    return max(SPARE_CPUS, min(options.cpus_per_gpu, poorest))


def _on_cpus(stages: Sequence[Stage], nodes: Sequence[Node]) -> tuple[list[Bundle], list[Pool]]:
    """One actor of every stage side by side is a bundle, and all bundles are equal."""
    rooms = [node.room for node in nodes if node.cpus >= 2 * LOADER_CPUS]
    if not rooms:
        raise UsageError(
            f"models on CPUs need a node of {2 * LOADER_CPUS:g} CPU or more, and there {_are(nodes)}: add one, or nodes with "
            "GPUs (--wait-minutes gives a cluster time to grow)"
        )
    sizes = {room / math.ceil(room / (MODELS_SHARE * CPUS_AN_ACTOR)) for room in rooms}
    used = {size: size * _groups(rooms, size) for size in sizes}
    # the largest that is nearly as good as the best: every bundle holds the models once more
    size = max(size for size in sizes if used[size] >= NEARLY * max(used.values()))
    groups, total, pools = _groups(rooms, size), sum(stage.share for stage in stages), []
    threads = max(1, int(size / MODELS_SHARE))
    for stage in stages:
        cpus = _rounded((size - SPARE_CPUS) * stage.share / total)
        pools.append(Pool(stage, tuple(range(groups)), 0, cpus, threads, stage.rows("cpu", threads)))
    return [Bundle(_rounded(size))] * groups, pools


def _groups(rooms: Sequence[float], size: float) -> int:
    """How many of that size find room."""
    return sum(int(room / size + 1e-9) for room in rooms)


def _loaders(bundles: Sequence[Bundle], able: Sequence[Node], others: Sequence[Node]) -> int:
    """Loading tasks that find room beside the bundles, which are on the nodes that are able to have them, and on the others."""
    left = [[float(node.gpus), node.cpus] for node in able]
    for bundle in sorted(bundles, key=lambda bundle: (-bundle.gpus, -bundle.cpus)):
        roomy = [room for room in left if room[0] >= bundle.gpus and room[1] + 1e-9 >= bundle.cpus]
        if not roomy:
            raise UsageError(
                f"the plan needs {len(bundles)} times {_what(bundle.cpus, bundle.gpus)} of one node, and there {_are(able)}: "
                "not all find room; add nodes, or ask for fewer GPUs (--gpus)"
            )
        chosen = max(roomy)
        chosen[0] -= bundle.gpus
        chosen[1] -= bundle.cpus
    free = [cpus for _, cpus in left] + [node.cpus for node in others]
    return sum(int(cpus / LOADER_CPUS + 1e-9) for cpus in free)


def _are(nodes: Sequence[Node]) -> str:
    """What there is, in words: equal nodes counted."""
    kinds: dict[str, int] = {}
    for node in nodes:
        what = _what(node.cpus, node.gpus)
        kinds[what] = kinds.get(what, 0) + 1
    if not kinds:
        return "is no node"
    listed = ", ".join(f"{count} of {what}" for what, count in sorted(kinds.items()))
    return f"{'is one node' if len(nodes) == 1 else f'are {len(nodes)} nodes'}: {listed}"


def _what(cpus: float, gpus: int) -> str:
    return f"{cpus:g} CPU" + (f" and {gpus} GPU" if gpus else "")
