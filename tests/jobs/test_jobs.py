"""The jobs as a user starts them."""

import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.toy.archive import write_archive
from tests.conftest import REPOSITORY


def start(*arguments, **options) -> subprocess.Popen:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_was(toy_index, planet, tmp_path):
    write_archive(tmp_path / "archive", tmp_path / "truth.csv", planet, 160)
    parts = tmp_path / "out" / "geotags"
    command = ["jobs/geotag_archive.py", tmp_path / "archive", tmp_path / "out"]
    command += ["--recipe", "lite", "--index", toy_index, "--candidates", "5", "--context", "off"]
    job = start(*command)
    while not list(parts.glob("*.parquet")):
        assert job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert before

    again = start(*command)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "going on with 160 listed photos" in errors
    assert "160 photos:" in errors
    ids = pa.concat_tables([pq.read_table(path, columns=["id"]) for path in parts.glob("*.parquet")])["id"].to_pylist()
    assert sorted(ids) == list(range(160))
    after = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert before.items() <= after.items()
    assert (tmp_path / "out" / "_SUCCESS").exists()

    nowhere = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}  # whoever wants a cluster fails
    third = start(*command, env=nowhere)
    _, errors = third.communicate(timeout=120)
    assert third.returncode == 0, errors
    assert "Nothing to do: every photo has its result" in errors


def test_a_mistake_is_one_line_and_a_status(tmp_path):
    job = start("jobs/geotag_archive.py", tmp_path, tmp_path / "out", "--recipe", "lite")
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 2
    assert errors.strip() == "error: --index: encoder lite has no gallery of its own; make an index with build_index.py"


def test_the_toy_planet_is_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        job = start("jobs/make_toy_planet.py", tmp_path / name, "--references", "12", "--photos", "12")
        assert job.wait(120) == 0
    files = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*") if p.suffix != ".csv"}
        for n in ("a", "b")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 24
