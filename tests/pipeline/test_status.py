import json

import pytest

from geoloc.errors import UsageError
from geoloc.pipeline import lease
from geoloc.pipeline.lease import leased
from geoloc.pipeline.progress import Progress
from geoloc.pipeline.status import STATUS, StatusOptions, describe_status, print_status, status_of, told
from geoloc.storage import Folder
from tests.pipeline.test_lease import ELSEWHERE


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Folder:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    monkeypatch.setattr(lease, "LOOK_S", 0.5)
    return Folder(str(tmp_path))


def test_a_run_at_work_is_told_with_rate_and_time_left(folder, monkeypatch):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("geoloc.pipeline.progress.time.monotonic", lambda: next(clock, 20.0))
    progress = Progress(1000, every_s=60)
    progress.begin_lanes([600, 400])
    progress.add({"located": 90, "failed": 10}, lane=1)
    progress.add({"located": 200})
    with leased(folder) as held, told(held, "working through photos", progress.record):
        while not folder.exists(STATUS):
            pass
        found = status_of(folder)
    assert found["state"] == "running"
    assert describe_status(found)[0].endswith(", working through photos")
    line = "300 of 1,000 (30 %) · 20.0 photos/s · 0:00:35 left · 290 located, 10 failed"
    assert describe_status(found)[1:] == [line, "2 lanes: 33 %, 25 %"]


def test_one_that_was_cut_off_says_where(folder):
    folder.write(STATUS, json.dumps({"phase": "listing photos"}).encode())
    assert status_of(folder) == {"state": "stopped", "phase": "listing photos"}
    assert describe_status(status_of(folder)) == [
        "stopped, while listing photos",
        "It was cut off: the same command goes on from there",
    ]


@pytest.mark.parametrize("renews", [True, False])
def test_a_run_elsewhere_is_watched(folder, renews, monkeypatch):
    folder.write("run.json", b"{}")
    beats = iter(range(1000))

    def last(terms):
        return 1, ELSEWHERE | {"beats": next(beats) if renews else 0}

    monkeypatch.setattr(lease, "_last", last)
    assert status_of(folder)["state"] == ("running" if renews else "stopped")


@pytest.mark.parametrize(("proof", "missing", "state"), [(True, 0, "finished"), (False, 3, "incomplete")])
def test_one_that_ended_tells_its_counts(folder, proof, missing, state, capsys):
    record = {"finished": "2026-01-02T03:04:05+00:00", "counts": {"located": 1200, "kept": 7}, "missing": missing}
    folder.write("run.json", json.dumps(record).encode())
    if proof:
        folder.write("_SUCCESS", b"{}")
    assert print_status(StatusOptions(folder.uri)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{state} at 2026-01-02T03:04:05+00:00: 1,207 photos: 1,200 located, 7 kept"
    assert lines[1:] == (["3 photos have no result: the same command goes on from there"] if missing else [])
    assert print_status(StatusOptions(folder.uri, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["state"] == state


def test_a_folder_without_a_run_is_an_error(folder):
    with pytest.raises(UsageError, match=r"RUN .*: has no run.json"):
        status_of(folder)
