import pytest
import ray

from geoloc.errors import UsageError
from geoloc.pipeline.cluster import LOADER_CPUS, make_plan
from geoloc.pipeline.options import ClusterOptions


@pytest.fixture
def cluster(monkeypatch):
    def resources(**values):
        monkeypatch.setattr(ray, "cluster_resources", lambda: {key: float(value) for key, value in values.items()})

    return resources


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 16, 64, 100])
@pytest.mark.parametrize("ranker", [False, True])
def test_a_loading_task_always_has_room(cluster, cpus, ranker):
    cluster(CPU=cpus)
    plan = make_plan(ClusterOptions(), ranker)
    assert plan.models.device == "cpu"
    assert plan.loaders >= 1
    pools = [pool for pool in (plan.models, plan.rankers) if pool]
    assert len(pools) == 1 + ranker
    assert sum(pool.actors * pool.cpus_each for pool in pools) + LOADER_CPUS <= cpus
    assert all(0 < pool.cpus_each != LOADER_CPUS for pool in pools)


def test_gpus_get_an_actor_each_and_leave_the_cpus_to_loading(cluster):
    cluster(CPU=32, GPU=4)
    pool = make_plan(ClusterOptions()).models
    assert (pool.actors, pool.gpus_each, pool.cpus_each, pool.device) == (4, 1, 0, "cuda")
    plans = [make_plan(ClusterOptions(gpus_per_actor=2)), make_plan(ClusterOptions(gpus=2))]
    assert [plan.models.actors for plan in plans] == [2, 2]
    assert make_plan(ClusterOptions(gpus=0)).models.device == "cpu"


@pytest.mark.parametrize(("gpus", "each"), [(1, 1), (4, 1), (40, 1), (2, 2), (8, 2)])
def test_every_gpu_ranks_and_retrieval_finds_room_beside(cluster, gpus, each):
    cluster(CPU=32, GPU=gpus)
    if gpus == each == 2:
        with pytest.raises(UsageError, match="--gpus-per-actor 2: leaves none of 2 GPUs to the ranker"):
            make_plan(ClusterOptions(gpus_per_actor=each), ranker=True)
        return
    plan = make_plan(ClusterOptions(gpus_per_actor=each), ranker=True)
    assert plan.rankers.actors == (gpus if each == 1 else gpus - each)
    on_them = plan.models.actors * plan.models.gpus_each + plan.rankers.actors * plan.rankers.gpus_each
    assert on_them <= gpus


@pytest.mark.parametrize(
    ("have", "options", "message"),
    [
        ({"CPU": 0.5}, ClusterOptions(), "needs at least 1 CPU"),
        ({}, ClusterOptions(), "the cluster has 0 CPU"),
        ({"CPU": 8, "GPU": 1}, ClusterOptions(gpus=2), r"2 GPU \(--gpus\), and the cluster has 8 CPU and 1 GPU"),
        ({"CPU": 8}, ClusterOptions(gpus=3, gpus_per_actor=2), "--gpus-per-actor 2"),
        ({"CPU": 8}, ClusterOptions(batch_size=0), "--batch-size 0"),
    ],
)
def test_a_plan_that_cannot_be_scheduled_is_refused(cluster, have, options, message):
    cluster(**have)
    with pytest.raises(UsageError, match=message):
        make_plan(options)


def test_a_growing_cluster_is_waited_for(monkeypatch):
    grown = iter([{"CPU": 0.0}, {"CPU": 4.0}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: next(grown))
    assert make_plan(ClusterOptions(wait_minutes=1)).models.actors == 1
