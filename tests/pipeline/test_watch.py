"""A run that goes nowhere ends, and says where it stands."""

import functools
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from geoloc.errors import StalledError
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.views import View
from geoloc.pipeline import watch
from geoloc.pipeline.cluster import connect
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Stage
from tests.pipeline.archives import run_of


def wait_for(file: Path) -> None:
    while not file.exists():
        time.sleep(0.1)


def never_ready(device: str, threads: int, release: Path):
    wait_for(release)


def stuck(device: str, threads: int, release: Path):
    def answer(batch: pa.Table) -> pa.Table:
        wait_for(release)
        return batch

    return answer


@pytest.fixture
def release(tmp_path, ray_cluster):
    """A file that lets go whoever is stuck: their CPUs are the next test's."""
    yield tmp_path / "release"
    (tmp_path / "release").touch()
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("build", "minutes", "said"),
    [
        (never_ready, 0.05, "judge: not one of its processes is ready"),
        pytest.param(stuck, 0.25, r"loading: ended a batch of 3 .*; judge: began a batch of 3", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_stands_still_stops(tmp_path, monkeypatch, release, build, minutes, said):
    """Also where a shell started it in the background, and it ignores SIGINT."""
    monkeypatch.setattr(watch, "POLL_S", 0.5)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    run = run_of(tmp_path, 3)
    connect()
    stages = [Stage("judge", functools.partial(build, release=release))]
    stream = Stream(run, LoadOptions(DecodeOptions(View(16))), Placement(ClusterOptions(stall_minutes=minutes), stages))
    start = time.monotonic()
    with pytest.raises(StalledError, match=rf"no stage has done anything for 0 minutes .*{said}.*free are .* CPU and "):
        stream.work()
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN
    assert time.monotonic() - start < 90
    assert run.pending()[1] == 3
