"""The job as a cluster's users start it: over the Jobs API, with their folder, a recipe of their own from a pip list, and a token."""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY

PORT = 9765
RECIPE = """
import dataclasses
from geoloc.recipes.named import lite
def ours():
    return dataclasses.replace(lite(), name="ours")
"""


@pytest.fixture(scope="module")
def folder():
    """Of a short name: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def wheel(folder) -> Path:
    """A package that no node has yet."""
    path = folder / "our_recipes-1.0-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: our-recipes\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("our_recipes.py", RECIPE)
        for name, text in about.items():
            file.writestr(f"our_recipes-1.0.dist-info/{name}", text)
    return path


@pytest.fixture(scope="module")
def ray_jobs(folder):
    """The command ``ray job`` for a cluster of two CPUs that ``ray start`` has started, and the environment it takes."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    programs = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }
    others = [f"--dashboard-port={PORT}", f"--ray-client-server-port={PORT + 1}", f"--temp-dir={folder}/ray"]
    others += [f"--dashboard-agent-listen-port={PORT + 2}", "--disable-usage-stats"]
    with (folder / "ray.log").open("w") as log:
        cluster = subprocess.Popen(
            [programs / "ray", "start", "--head", "--block", "--num-cpus=2", "--port=0", *others],
            env=environment,
            stdout=log,
            stderr=log,
        )

    def jobs(command: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [programs / "ray", "job", command, "--address", f"http://127.0.0.1:{PORT}", *arguments],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=300,
        )

    try:
        wait(lambda: asked("version", token.read_text()).is_success)
        yield jobs
    finally:
        for process in [*psutil.Process(cluster.pid).children(recursive=True), psutil.Process(cluster.pid)]:
            process.kill()


def asked(path: str, token: str | None = None) -> httpx.Response:
    """By HTTP: every command of ``ray`` takes seconds of what the cluster computes with."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/api/{path}", headers=headers, timeout=30)
    except httpx.TransportError:  # it does not listen yet
        return httpx.Response(503)


def wait(true: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.mark.timeout(900)
def test_a_job_is_submitted_stopped_and_submitted_again(ray_jobs, folder, wheel, toy, toy_index, request):
    """And goes on where it was; its logs tell how far it is. A pip list takes Ray a minute more than a module."""
    how = "pip" if request.config.getoption("--slow") else "py_modules"
    output, environment = folder / "out", json.dumps({how: [str(wheel)]})
    command = ["python", "jobs/geotag_archive.py", str(toy / "archive"), str(output), "--index", str(toy_index)]
    command += ["--recipe", "our_recipes:ours", "--batch-size", "1"]
    given = ["--working-dir", ".", "--runtime-env-json", environment]
    assert ray_jobs("submit", *given, "--no-wait", "--submission-id", "first", "--", *command).returncode == 0
    token, under_way = (folder / "token").read_text(), r"To do: 40 photos; 1 retriever actor"
    wait(lambda: re.search(under_way, asked("jobs/first/logs", token).text))
    assert ray_jobs("stop", "first").returncode == 0
    assert re.search(under_way, ray_jobs("logs", "first").stdout)
    assert "Job 'first' was stopped" in ray_jobs("status", "first").stdout
    assert not (output / "_SUCCESS").exists()

    again = ray_jobs("submit", *given, "--submission-id", "again", "--", *command)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "Photos: going on with 40 listed photos" in again.stdout
    assert re.search(r"\[0:\d\d:\d\d\] \d+ of \d+ \(\d+ %\)", again.stdout)
    assert sorted(pq.read_table(output / "geotags", columns=["id"])["id"].to_pylist()) == list(range(40))
    assert json.loads((output / "run.json").read_text())["recipe"]["name"] == "ours"
    assert (output / "_SUCCESS").exists()


def test_a_job_that_cannot_be_ends_with_its_status(ray_jobs, folder, toy):
    command = ["python", "jobs/geotag_archive.py", str(toy / "archive"), str(folder / "other"), "--index", "/nowhere"]
    done = ray_jobs("submit", "--working-dir", ".", "--submission-id", "wrong", "--", *command)
    assert done.returncode == 1
    assert "error: --index /nowhere: no index.json there" in done.stdout
    assert "driver_exit_code=2" in ray_jobs("list").stdout


def test_nobody_without_the_token_submits(ray_jobs):
    assert asked("jobs/").status_code == 401
