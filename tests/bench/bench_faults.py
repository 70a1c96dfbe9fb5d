"""What is lost when something goes wrong on a cluster: each fault several times, at a time that is drawn.

python -m tests.bench.bench_faults [times] [fault …]

The archive job itself, with encoder `lite`, on a head without CPUs and nodes of two; photos and results in a bucket of a server
that can fail. Printed for each run: when, how long it took (an undisturbed run beside it), what became of every photo, and whether
the answers are those of the undisturbed run.
"""

import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pyarrow as pa

from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet
from tests.bench.faulty_s3 import Weather, faulty_s3
from tests.nodes import nodes

PHOTOS, TIMES, LIMIT_S = 600, 2, 420
NODE = {"num_cpus": 2}
ANSWER = ["id", "status", "error_kind", "lat", "lon"]


@dataclass
class Stand:
    """Where it happens: photos, index, and how the job is called."""

    root: Path
    weather: Weather
    endpoint: str

    def start(self, name: str, address: str | None) -> subprocess.Popen:
        given = {"RAY_ADDRESS": address} if address else {}
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | given
        command = [sys.executable, "jobs/geotag_archive.py", "s3://photos/", f"s3://results/{name}", "--recipe", "lite"]
        command += ["--index", str(self.root / "index"), "--batch-size", "8", "--adapt-minutes", "0.2"]
        with (self.root / f"{name}.log").open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def parts(self, name: str) -> Parts:
        return Parts(Folder(f"s3://results/{name}/geotags"))

    def written(self, name: str) -> int:
        with contextlib.suppress(Exception):  # the folder is not there yet, or the store is not
            return sum(len(ids) for _, ids in self.parts(name).ids())
        return 0

    def answers(self, name: str) -> dict[int, tuple]:
        rows = pa.concat_tables(self.parts(name).tables(ANSWER)).to_pylist()
        assert len({row["id"] for row in rows}) == len(rows), "a photo has two rows"
        return {row["id"]: tuple(row.values())[1:] for row in rows}


@dataclass
class Scene:
    """One run, and the cluster it is on."""

    stand: Stand
    name: str
    cluster: object
    joined: list
    job: subprocess.Popen

    def raylet(self, node: object) -> int:
        return node.all_processes["raylet"][0].process.pid

    def node_of(self, title: str) -> object:
        """Of a process by a part of its name."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for node in self.joined:
                children = psutil.Process(self.raylet(node)).children(recursive=True)
                if any(title in " ".join(child.cmdline()) for child in children if child.is_running()):
                    return node
            time.sleep(0.2)
        raise TimeoutError(title)

    def lose(self, node: object) -> None:
        self.joined.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def kill(self, title: str) -> None:
        for child in psutil.Process(self.raylet(self.node_of(title))).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(child.cmdline()):
                    child.kill()
                    return


def node_for_node(scene: Scene, draw: random.Random) -> None:
    scene.joined.append(scene.cluster.add_node(**NODE))
    scene.lose(draw.choice(scene.joined[:-1]))


def writers_node(scene: Scene, draw: random.Random) -> None:
    scene.lose(scene.node_of("_Writer"))


def models_node(scene: Scene, draw: random.Random) -> None:
    scene.lose(scene.node_of("ModelActor"))


def model_killed(scene: Scene, draw: random.Random) -> None:
    for _ in range(3):
        scene.kill("ModelActor")
        time.sleep(draw.uniform(0, 4))


def throttled(scene: Scene, draw: random.Random) -> None:
    scene.stand.weather.throttled = 0.3


def reset(scene: Scene, draw: random.Random) -> None:
    scene.stand.weather.reset = 0.1


def stalled(scene: Scene, draw: random.Random) -> None:
    scene.stand.weather.stalled = 0.05


def deleted(scene: Scene, draw: random.Random) -> None:
    scene.stand.weather.deleted = 0.01


def writes_refused(scene: Scene, draw: random.Random) -> None:
    scene.stand.weather.writes_refused = True
    time.sleep(120)
    scene.stand.weather.writes_refused = False


def expired(scene: Scene, draw: random.Random) -> None:
    """The job ends, or goes on; whichever, the command is given again when there are new ones."""
    scene.stand.weather.expired = True
    scene.job.wait(LIMIT_S)
    scene.stand.weather.expired = False


def second_job(scene: Scene, draw: random.Random) -> None:
    second = scene.stand.start(scene.name, scene.cluster.address)
    assert second.wait(120) == 2, "two jobs write to one folder"


def cluster_lost(scene: Scene, draw: random.Random) -> None:
    """Head and all: the driver goes with it."""
    scene.job.kill()
    for node in [*scene.joined, scene.cluster.head_node]:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(scene.raylet(node)).kill()


FAULTS: dict[str, Callable[[Scene, random.Random], None]] = {
    "a node is lost, another joins": node_for_node,
    "the writer's node is lost": writers_node,
    "a model's node is lost": models_node,
    "models are killed, three times": model_killed,
    "head and nodes are lost": cluster_lost,
    "30 % of requests are throttled": throttled,
    "10 % of connections are reset": reset,
    "5 % of answers stall for 10 s": stalled,
    "1 % of objects are deleted": deleted,
    "credentials expire": expired,
    "writing is refused for 2 minutes": writes_refused,
    "a second job on the same output": second_job,
}


def main(times: int = TIMES, chosen: tuple[str, ...] = ()) -> None:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        weather = Weather()
        with faulty_s3(weather, "photos") as endpoint:
            stand = prepare(Path(folder), weather, endpoint)
            start = time.monotonic()
            run(stand, "whole", None, random.Random(0))
            whole, expected = time.monotonic() - start, stand.answers("whole")
            print(f"undisturbed: {whole:.0f} s", flush=True)
            print("| fault | at | seconds | tries | rows | as undisturbed | otherwise |\n|---|---|---|---|---|---|---|")
            for fault, happen in FAULTS.items():
                if chosen and not any(name in fault for name in chosen):
                    continue
                for number in range(times):
                    print(one(stand, fault, happen, number, whole, expected), flush=True)


def one(stand: Stand, fault: str, happen: Callable, number: int, whole: float, expected: dict) -> str:
    draw = random.Random(f"{fault} {number}")
    name = f"{list(FAULTS).index(fault)}-{number}"
    start = time.monotonic()
    rows_at, tries = run(stand, name, happen, draw)
    seconds, answers = time.monotonic() - start, stand.answers(name)
    assert set(answers) == set(expected), "photos are missing"
    others = Counter(answers[photo][1] or answers[photo][0] for photo in expected if answers[photo] != expected[photo])
    same = len(expected) - others.total()
    listed = ", ".join(f"{count} {kind}" for kind, count in others.items()) or "none"
    return f"| {fault} | {rows_at} rows | {seconds:.0f} | {tries} | {len(answers)} | {same} | {listed} |"


def run(stand: Stand, name: str, happen: Callable | None, draw: random.Random) -> tuple[int, int]:
    """Rows that were written when it happened, and how often the command was given."""
    stand.weather.__dict__.update(Weather().__dict__)
    rows, tries = 0, 1
    with nodes({"num_cpus": 0}, NODE, NODE) as (cluster, joined):
        job = stand.start(name, cluster.address)
        if happen:
            at = draw.randrange(PHOTOS // 2)
            while stand.written(name) < at and job.poll() is None:
                time.sleep(0.3)
            rows = stand.written(name)
            happen(Scene(stand, name, cluster, joined, job), draw)
        job.wait(LIMIT_S)
    stand.weather.__dict__.update(Weather().__dict__)
    while job.returncode:
        assert tries < 4, (stand.root / f"{name}.log").read_text()[-3000:]
        tries += 1
        with nodes({"num_cpus": 0}, NODE, NODE) as (cluster, _):
            job = stand.start(name, cluster.address)
            job.wait(LIMIT_S)
    return rows, tries


def prepare(root: Path, weather: Weather, endpoint: str) -> Stand:
    planet = Planet()
    write_references(root / "references", planet, 300)
    write_archive(root / "archive", root / "truth.csv", planet, PHOTOS)
    index = [sys.executable, "jobs/build_index.py", root / "references", root / "index", "--encoder", "lite"]
    subprocess.run(index, check=True, capture_output=True)
    os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    client = boto3.client("s3")
    for bucket in ("photos", "results"):
        client.create_bucket(Bucket=bucket)
    for file in sorted((root / "archive").rglob("*")):
        if file.is_file():
            client.upload_file(str(file), "photos", file.relative_to(root / "archive").as_posix())
    return Stand(root, weather, endpoint)


if __name__ == "__main__":
    threading.stack_size(512 * 1024)
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else TIMES, tuple(arguments[1:]))
