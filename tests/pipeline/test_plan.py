"""Plans for clusters that are made up: all fit, by a packing of their own, or are refused with what would do."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.plan import LOADER_CPUS, Node, Plan, check_options, lay_out
from geoloc.recipes.stage import Stage

RETRIEVER = Stage("retriever", print, whole_index=True)
BESIDE = dataclasses.replace(RETRIEVER, share=0.25)
LIGHT = Stage("light", print, cost=4)
RANKER = Stage("ranker", print, cost=16, gpu_rows=16, cpu_rows=16)
STAGES = [[RETRIEVER], [BESIDE, RANKER], [BESIDE, LIGHT, RANKER]]


def fits(plan: Plan, nodes: list[Node]) -> bool:
    """Whether every bundle finds a node, those of most GPUs first, each where most GPUs, then most CPUs are left, and a loading
    task beside them; and whether every actor is in a bundle that has room for it and for the others there."""
    left = [[node.gpus, node.cpus] for node in nodes]
    for bundle in sorted(plan.bundles, key=lambda bundle: -bundle.gpus):
        able = [node for node in left if node[0] >= bundle.gpus and node[1] > bundle.cpus - 1e-6]
        if not able:
            return False
        best = max(able)
        best[0] -= bundle.gpus
        best[1] -= bundle.cpus
    for number, bundle in enumerate(plan.bundles):
        inside = [pool for pool in plan.pools for at in pool.bundles if at == number]
        if sum(pool.gpus_each for pool in inside) > bundle.gpus + 1e-9:
            return False
        if sum(pool.cpus_each for pool in inside) > bundle.cpus + 1e-9:
            return False
    return any(cpus > LOADER_CPUS - 1e-6 for _, cpus in left)


cpu_nodes = st.builds(Node, st.sampled_from([0, 0.5, 1, 2, 3, 4, 7, 8, 12, 16, 48, 64, 96]))
gpu_nodes = st.builds(Node, st.sampled_from([1, 2, 4, 8, 48, 96, 192]), st.sampled_from([1, 2, 4, 8]))


@given(
    st.lists(cpu_nodes, max_size=5),
    st.lists(gpu_nodes, max_size=5),
    st.sampled_from(STAGES),
    st.sampled_from([1, 1, 2, 4]),
    st.sampled_from([None, None, 0, 4]),
)
@settings(max_examples=400, deadline=None)
def test_a_plan_fits_or_is_refused(cpus, gpus, stages, each, wanted):
    nodes, options = cpus + gpus, ClusterOptions(gpus=wanted, gpus_per_actor=each)
    try:
        plan = lay_out(options, stages, nodes)
    except UsageError:
        # never where every node could do with one GPU an actor, or none, and there are CPUs to load with
        assert wanted == 4 or each > 1 or all(node.cpus < 1 for node in nodes)
        return
    assert fits(plan, nodes)
    assert plan.loaders >= 1
    assert [pool.stage for pool in plan.pools] == stages
    assert all(pool.cpus_each > 0 for pool in plan.pools if pool.device == "cpu")
    assert plan.gpus == sum(bundle.gpus for bundle in plan.bundles) <= sum(node.gpus for node in nodes)
    for pool in plan.pools:  # no two of a stage on one GPU
        assert len(set(pool.bundles)) == pool.actors


@pytest.mark.parametrize(
    ("nodes", "stages", "options", "pools"),
    [
        ([Node(0, 2), Node(16, 4)], [RETRIEVER], {}, "4 retriever actors (1 GPU each, batches of 256)"),
        ([Node(2)], [RETRIEVER], {}, "1 retriever actor (CPU, 2 threads each, batches of 32)"),
        ([Node(4)] * 2, [RETRIEVER], {}, "2 retriever actors (CPU, 4 threads each, batches of 64)"),
        ([Node(4)] * 10, [RETRIEVER], {}, "10 retriever actors (CPU, 4 threads each, batches of 64)"),
        ([Node(0), *[Node(8)] * 3], [RETRIEVER], {}, "3 retriever actors (CPU, 8 threads each, batches of 128)"),
        ([Node(64), Node(2)], [RETRIEVER], {}, "8 retriever actors (CPU, 8 threads each, batches of 128)"),
        ([Node(96, 8)], [RETRIEVER], {}, "8 retriever actors (1 GPU each, batches of 256)"),
        ([Node(96, 8)] * 4, [RETRIEVER], {"gpus_per_actor": 4}, "8 retriever actors (4 GPU each, batches of 256)"),
        ([Node(96, 8)] * 4, [RETRIEVER], {"gpus": 0}, "48 retriever actors (CPU, 8 threads each, batches of 128)"),
        ([Node(96, 8)] * 4, [RETRIEVER], {"batch_size": 5, "gpus": 2}, "2 retriever actors (1 GPU each, batches of 5)"),
        (
            [Node(96, 8)] * 4,
            [BESIDE, RANKER],
            {},
            "2 retriever actors (0.2 GPU each, batches of 256), 32 ranker actors (0.8 GPU each, batches of 16)",
        ),
        (
            [Node(16)] * 80 + [Node(48, 4)] * 15 + [Node(8, 1)] * 5,
            [BESIDE, RANKER],
            {},
            "5 retriever actors (0.2 GPU each, batches of 256), 65 ranker actors (0.8 GPU each, batches of 16)",
        ),
        (
            [Node(96, 8)],
            [BESIDE, RANKER],
            {"gpus_per_actor": 2},
            "1 retriever actor (2 GPU each, batches of 256), 6 ranker actors (1 GPU each, batches of 16)",
        ),
        (
            [Node(4)] * 2,
            [BESIDE, RANKER],
            {},
            "2 retriever actors (CPU, 4 threads each, batches of 64), 2 ranker actors (CPU, 4 threads each, batches of 16)",
        ),
    ],
)
def test_clusters_and_their_plans(nodes, stages, options, pools):
    plan = lay_out(ClusterOptions(**options), stages, nodes)
    assert ", ".join(pool.describe() for pool in plan.pools) == pools
    assert fits(plan, nodes)


def test_cpus_are_kept_for_gpus():
    """As many as asked for, but no more than half of a poor node's."""
    [pool] = lay_out(ClusterOptions(cpus_per_gpu=4), [RETRIEVER], [Node(96, 8)]).pools
    assert pool.cpus_each == pytest.approx(4, abs=0.03)
    plan = lay_out(ClusterOptions(cpus_per_gpu=4), [RETRIEVER], [Node(96, 8), Node(8, 8)])
    assert plan.pools[0].cpus_each == pytest.approx(0.5, abs=0.03)
    assert plan.loaders == 192


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([], {}, "models on CPUs need a node of 1 CPU or more, and there is no node"),
        ([Node(0.5)] * 3, {}, "need a node of 1 CPU or more, and there are 3 nodes: 3 of 0.5 CPU"),
        (
            [Node(16, 2)],
            {"gpus": 4},
            "--gpus 4, 1 an actor .*there is one node: 1 of 16 CPU and 2 GPU, where 2 actors find",
        ),
        ([Node(16, 2)] * 2, {"gpus_per_actor": 4}, "where 0 actors .*it takes nodes of 4 GPU or more, 4 in all"),
        ([Node(0, 1)], {"gpus": 1}, "--gpus 1, 1 an actor .* there is one node: 1 of 0 CPU, where 0 actors"),
        ([Node(1, 1), Node(0.2, 0)], {"cpus_per_gpu": 9, "gpus": 1}, "leaves no room for loading photos")
        if False
        else ([Node(0.6, 1)], {}, "leaves no room for loading photos, which takes 0.5 CPU"),
    ],
)
def test_what_fits_nowhere_is_refused_with_what_would_do(nodes, options, message):
    with pytest.raises(UsageError, match=message):
        lay_out(ClusterOptions(**options), [RETRIEVER], nodes)


def test_a_ranker_wants_a_gpu_beside_the_index():
    with pytest.raises(UsageError, match="--gpus-per-actor 2: leaves none of 2 GPUs to the ranker"):
        lay_out(ClusterOptions(gpus_per_actor=2), [BESIDE, RANKER], [Node(32, 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": 3, "gpus_per_actor": 2}, "--gpus-per-actor 2: must be at least 1 and divide --gpus 3"),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
        ({"cpus_per_gpu": -1}, "--cpus-per-gpu -1: must be at least 0"),
        ({"min_gpus": 2}, "--min-gpus 2: must be of --gpus None"),
        ({"gpus": 4, "min_gpus": 5}, "--min-gpus 5: must be of --gpus 4"),
        ({"gpus": 4, "gpus_per_actor": 2, "min_gpus": 1}, "--min-gpus 1: .*whole actors'"),
        ({"label_selector": ("zone",)}, "--label-selector zone: is not KEY=VALUE"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        check_options(ClusterOptions(**options))


H100 = {"ray.io/accelerator-type": "H100", "ray.io/market-type": "spot"}
A10G = {"ray.io/accelerator-type": "A10G", "ray.io/market-type": "on-demand"}


@pytest.mark.parametrize(
    ("selector", "actors"),
    [
        ((), 12),
        (("ray.io/accelerator-type=H100",), 8),
        (("ray.io/accelerator-type=in(A10G, L4)",), 4),
        (("ray.io/market-type=!spot",), 4),
        (("ray.io/accelerator-type=!in(A10G,H100)",), 0),
        (("ray.io/accelerator-type=H100", "ray.io/market-type=spot"), 8),
    ],
)
def test_models_are_on_nodes_of_a_kind(selector, actors):
    """Loading is anywhere: of 160 CPUs, one a GPU is the models'."""
    nodes = [Node(96, 8, H100), Node(32, 4, A10G), Node(32)]
    plan = lay_out(ClusterOptions(label_selector=selector), [RETRIEVER], nodes)
    assert plan.gpus == actors
    if actors:
        assert plan.loaders == 2 * (160 - actors)
    with pytest.raises(
        UsageError, match=r"--label-selector zone=a: no node has that; there is ray.io/accel.*A10G, ray"
    ):
        lay_out(ClusterOptions(label_selector=("zone=a",)), [RETRIEVER], nodes)


def test_fewer_gpus_will_do_where_that_is_said():
    options = ClusterOptions(gpus=8, min_gpus=2)
    assert lay_out(options, [RETRIEVER], [Node(8, 4)], options.min_gpus).gpus == 4
    with pytest.raises(UsageError, match="--gpus 8"):
        lay_out(options, [RETRIEVER], [Node(8, 4)])
    with pytest.raises(UsageError, match="--gpus 2, 1 an actor"):
        lay_out(options, [RETRIEVER], [Node(8, 1)], options.min_gpus)
    with pytest.raises(UsageError, match="--gpus 1, 1 an actor"):  # and not none
        lay_out(ClusterOptions(), [RETRIEVER], [Node(8)], 1)
