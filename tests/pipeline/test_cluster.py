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
def test_a_loading_task_always_has_room(cluster, cpus):
    cluster(CPU=cpus)
    plan = make_plan(ClusterOptions())
    assert plan.device == "cpu"
    assert plan.loaders >= 1
    assert plan.actors * plan.cpus_each + LOADER_CPUS <= cpus
    assert plan.cpus_each != LOADER_CPUS


def test_gpus_get_an_actor_each_and_leave_the_cpus_to_loading(cluster):
    cluster(CPU=32, GPU=4)
    plan = make_plan(ClusterOptions())
    assert (plan.actors, plan.gpus_each, plan.cpus_each, plan.device) == (4, 1, 0, "cuda")
    assert (make_plan(ClusterOptions(gpus_per_actor=2)).actors, make_plan(ClusterOptions(gpus=2)).actors) == (2, 2)
    assert make_plan(ClusterOptions(gpus=0)).device == "cpu"


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
    assert make_plan(ClusterOptions(wait_minutes=1)).actors == 1
