"""A training function that is killed again and again, with its checkpoints in a bucket and no disk that workers share."""

import functools
import os
import tempfile
import time
from pathlib import Path

import pytest

from geoloc.errors import UsageError
from geoloc.pipeline.options import ClusterOptions
from geoloc.storage import Folder
from geoloc.training.fitting import Team, fit, resumed, team

pytestmark = pytest.mark.usefixtures("ray_cluster")
STEPS = 4


def dies_at_every_step(deaths: Path) -> None:
    """After the checkpoint of that step."""
    import ray.train

    for step in range(resumed(lambda folder: int((folder / "step").read_text())), STEPS):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "step").write_text(str(step + 1))
            ray.train.report({"step": step + 1}, ray.train.Checkpoint.from_directory(folder))
        if step + 1 < STEPS:
            (deaths / str(step + 1)).touch()
            time.sleep(2)  # Ray Train looks at its workers every second
            os._exit(1)


def dies_at_once(deaths: Path) -> None:
    (deaths / str(os.getpid())).touch()
    os._exit(1)


def held_by_trainings() -> list[str]:
    """Room on the cluster that workers have: half a CPU each."""
    import ray

    return [name for name, size in ray.cluster_resources().items() if name.startswith("CPU_group") and size == 0.5]


@pytest.mark.slow
def test_failures_are_borne_from_checkpoint_to_checkpoint(s3, tmp_path):
    """As many of them as end a training that has none (below)."""
    s3.create_bucket(Bucket="training")
    result = fit(
        functools.partial(dies_at_every_step, tmp_path), Folder("s3://training/run"), Team(1, gpus=False, fewest=1)
    )
    assert result.metrics["step"] == STEPS
    assert sorted(int(file.name) for file in tmp_path.iterdir()) == [1, 2, 3]


@pytest.mark.slow
def test_one_that_gets_nowhere_ends(tmp_path):
    (tmp_path / "deaths").mkdir()
    with pytest.raises(Exception, match=r"died|exited|exit"):
        fit(
            functools.partial(dies_at_once, tmp_path / "deaths"),
            Folder(str(tmp_path / "run")),
            Team(1, gpus=False, fewest=1),
        )
    assert len(list((tmp_path / "deaths").iterdir())) == 3
    ends = time.monotonic() + 10
    while held_by_trainings() and time.monotonic() < ends:
        time.sleep(0.2)
    assert not held_by_trainings()


def test_a_team_has_what_there_is():
    assert team(None, ClusterOptions()) == Team(1, gpus=False, fewest=1)
    assert team(2, ClusterOptions()) == Team(2, gpus=False, fewest=2)
    with pytest.raises(UsageError, match="--gpus 2, 1 an actor"):
        team(None, ClusterOptions(gpus=2))
    assert Team(4, gpus=True, fewest=1).of(3) == Team(3, gpus=True, fewest=1)
    assert Team(4, gpus=True, fewest=2).together() == Team(4, gpus=True, fewest=4)
