"""Clusters of several nodes on this machine, with GPUs that are made up, and jobs on them whose models are stand-ins.

A process of its own holds the nodes, and starts the job as another: ``python -m tests.nodes SCENARIO FOLDER``.
"""

import dataclasses
import functools
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.sources import Source
from geoloc.photos.views import View
from geoloc.pipeline.cluster import connect
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Stage
from geoloc.results.parts import Parts
from geoloc.schema import LOADED
from geoloc.storage import Folder, S3Options


def stand_in(name: str, notes: Path, seconds: float, device: str, threads: int) -> Callable[[pa.Table], pa.Table]:
    """Models that take so long for a photo, and note where they are: ``name-node-gpu-process``."""
    gpus = "".join(map(str, ray.get_gpu_ids()))
    (notes / f"{name}-{ray.get_runtime_context().get_node_id()}-{gpus}-{os.getpid()}").touch()

    def answer(batch: pa.Table) -> pa.Table:
        time.sleep(seconds * batch.num_rows)
        nothing = pa.nulls(batch.num_rows, pa.string())
        return pa.table({"id": batch["id"], "status": ["located"] * batch.num_rows, "error_kind": nothing})

    return answer


def noted(notes: Path, table: pa.Table) -> pa.Table:
    (notes / f"writer-{ray.get_runtime_context().get_node_id()}--{os.getpid()}").touch()
    return table


@dataclasses.dataclass
class Models:
    """A stage's stand-in."""

    name: str
    seconds: float = 0.0
    share: float = 1.0
    cost: float = 1.0

    def stage(self, notes: Path) -> Stage:
        return Stage(self.name, functools.partial(stand_in, self.name, notes, self.seconds), self.cost, self.share)


class Scene:
    """An archive of so many photos, and a job that works it off."""

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.notes = folder, folder / "notes"
        for name in ("photos", "notes"):
            (folder / name).mkdir(parents=True)
        for number in range(photos):
            Image.new("RGB", (20, 20), (number % 256, number // 256, 0)).save(folder / "photos" / f"{number:05d}.png")

    def start(self, address: str, options: ClusterOptions, *models: Models) -> subprocess.Popen:
        described = json.dumps([dataclasses.asdict(options), [dataclasses.asdict(one) for one in models]])
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.nodes", "job", str(self.folder), described],
                env=environment | {"RAY_ADDRESS": address},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def places(self, name: str) -> list[tuple[str, str]]:
        """Node and GPU of each process that a stage has had."""
        return [tuple(path.name.split("-")[1:3]) for path in self.notes.iterdir() if path.name.startswith(f"{name}-")]

    def rows(self) -> int:
        """Written so far; each photo once."""
        ids = [row for found in Parts(Folder(str(self.folder / "run" / "parts"))).ids().values() for row in found]
        assert len(ids) == len(set(ids))
        return len(ids)


def job(folder: Path, described: str) -> None:
    """The driver."""
    options, models = json.loads(described)
    options["label_selector"] = tuple(options["label_selector"])
    connect()
    notes = folder / "notes"
    placement = Placement(ClusterOptions(**options), [Models(**one).stage(notes) for one in models])
    run = Run(Folder(str(folder / "run")), "parts", LOADED)
    run.list_photos(Source(str(folder / "photos"), S3Options()))
    load = LoadOptions(DecodeOptions(View(16)))
    photos = Stream(run, load, placement, functools.partial(noted, notes)).work().photos
    print(f"{photos} photos done, {run.reconcile()} missing")


@contextmanager
def nodes(head: dict, *others: dict) -> Iterator[tuple[Cluster, list]]:
    """A cluster of these nodes."""
    cluster = Cluster()
    cluster.add_node(**head, include_dashboard=False)
    try:
        yield cluster, [cluster.add_node(**other) for other in others]
    finally:
        cluster.shutdown()


def until(true: Callable[[], bool], what: str, seconds: float = 120) -> float:
    """Seconds it took. Raises TimeoutError."""
    start = time.monotonic()
    while not true():
        if time.monotonic() - start > seconds:
            raise TimeoutError(what)
        time.sleep(0.2)
    return time.monotonic() - start


def gpus(folder: Path) -> dict:
    """Two nodes of two GPUs and a head without CPUs: the cheap stage has two actors, the dear one four."""
    scene = Scene(folder, 60)
    node = {"num_cpus": 4, "num_gpus": 2}
    with nodes({"num_cpus": 0}, node, node) as (cluster, _):
        cheap, dear = Models("cheap", share=0.25, cost=8), Models("dear", cost=16)
        status = scene.start(cluster.address, ClusterOptions(batch_size=2), cheap, dear).wait(200)
        head = cluster.head_node.node_id
    places = {name: scene.places(name) for name in ("cheap", "dear", "writer")}
    return {"status": status, "head": head, "places": places}


def change(folder: Path) -> dict:
    """One GPU, of four that are wanted; then three, of which one node is lost; without a photo lost, or done twice."""
    scene = Scene(folder, 600)
    node = {"num_cpus": 2, "num_gpus": 1}
    options = ClusterOptions(gpus=4, min_gpus=1, adapt_minutes=0.02, batch_size=4)
    with nodes({"num_cpus": 0}, node) as (cluster, _):
        running = scene.start(cluster.address, options, Models("judge", seconds=0.1))
        until(lambda: scene.rows() > 30, "the first rows")
        others = [cluster.add_node(**node), cluster.add_node(**node)]
        until(lambda: "are left; 3 judge actors" in scene.log, "three actors")
        until(lambda: len(scene.places("judge")) >= 4, "that they are ready")
        cluster.remove_node(others[0], allow_graceful=False)
        until(lambda: "are left; 2 judge actors" in scene.log, "two actors")
        status = running.wait(200)
    return {"status": status, "rows": scene.rows()}


FAKE_HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""The name that Ray's provider of made-up nodes has for the head."""


@contextmanager
def growing(folder: Path, head: dict, kinds: dict[str, dict]) -> Iterator[str]:
    """The address of a cluster to which Ray's autoscaler adds made-up nodes of these kinds."""
    types = {name: {"node_config": {}, "min_workers": 0} | kind for name, kind in kinds.items()}
    types["ray.head.default"] = {"resources": head, "node_config": {}, "max_workers": 0}
    commands = [
        "head_start_ray_commands",
        "worker_start_ray_commands",
        "initialization_commands",
        "cluster_synced_files",
    ]
    commands += [f"{who}setup_commands" for who in ("", "head_", "worker_")]
    config = {
        "cluster_name": "made_up",
        "max_workers": 8,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD,
        },
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1,
        "auth": {"ssh_user": "nobody"},
        "file_mounts": {},
    } | {key: [] for key in commands}
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(config))
    ours = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"}
    ours |= {"RAY_CLOUD_INSTANCE_ID": FAKE_HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD}
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of the job too
    command = [
        "ray",
        "start",
        "--head",
        "--block",
        "--port=6379",
        f"--autoscaling-config={file}",
        "--num-cpus=2",
    ]
    with (folder / "ray").open("w") as log:
        ray_head = subprocess.Popen(
            command, env=os.environ | ours, stdout=log, stderr=log, start_new_session=True, text=True
        )
    try:
        until(lambda: "runtime started" in (folder / "ray").read_text(), "the head")
        yield f"{ray.util.get_node_ip_address()}:6379"
    finally:
        for process in [*psutil.Process(ray_head.pid).children(recursive=True), ray_head]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def autoscaled(folder: Path) -> dict:
    """A cluster of no GPU whose autoscaler brings two nodes of two when four are asked for."""
    scene = Scene(folder, 20)
    kinds = {"gpu": {"resources": {"CPU": 2, "GPU": 2}, "max_workers": 3}}
    with growing(folder, {"CPU": 2}, kinds) as address:
        status = scene.start(address, ClusterOptions(gpus=4, wait_minutes=3), Models("judge")).wait(250)
    return {"status": status, "places": scene.places("judge")}


def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "job":
        job(folder, sys.argv[3])
        return
    try:
        print(json.dumps({"gpus": gpus, "change": change, "autoscaled": autoscaled}[command](folder)))
    finally:
        if (folder / "log").exists():
            print((folder / "log").read_text(), file=sys.stderr)


if __name__ == "__main__":
    _main()
