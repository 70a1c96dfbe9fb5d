"""Clusters of several nodes on this machine, with GPUs that are made up, and jobs on them whose models are stand-ins.

A process of its own holds the nodes, and starts the job as another: ``python -m tests.nodes SCENARIO FOLDER``.
"""

import dataclasses
import functools
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import psutil
import pyarrow as pa
import ray
from moto.server import ThreadedMotoServer
from PIL import Image
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from geoloc.errors import UsageError
from geoloc.index.store import local_copy
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.fetch import FetchOptions
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
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet


def stand_in(
    name: str, notes: Path, seconds: float, actors: int, device: str, threads: int
) -> Callable[[pa.Table], pa.Table]:
    """Models that take so long for a photo, and note where they are: ``name-node-gpu-process``.

    They answer when there are so many ``actors`` of them: on a slow machine the first to start would be done alone.
    """
    gpus = "".join(map(str, ray.get_gpu_ids()))
    (notes / f"{name}-{ray.get_runtime_context().get_node_id()}-{gpus}-{os.getpid()}").touch()

    def answer(batch: pa.Table) -> pa.Table:
        until(lambda: len(list(notes.glob(f"{name}-*"))) >= actors, f"{actors} actors of {name}")
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
    actors: int = 0

    def stage(self, notes: Path) -> Stage:
        models = functools.partial(stand_in, self.name, notes, self.seconds, self.actors)
        return Stage(self.name, models, self.cost, self.share)


class Scene:
    """An archive of so many photos, and a job that works it off."""

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.notes = folder, folder / "notes"
        for name in ("photos", "notes"):
            (folder / name).mkdir(parents=True)
        for number in range(photos):
            Image.new("RGB", (20, 20), (number % 256, number // 256, 0)).save(folder / "photos" / f"{number:05d}.png")

    def start(
        self, address: str, options: ClusterOptions, *models: Models, source: str | None = None, at_once: int = 32
    ) -> subprocess.Popen:
        """``at_once``: requests of a loading task."""
        described = json.dumps(
            {
                "options": dataclasses.asdict(options),
                "models": [dataclasses.asdict(one) for one in models],
                "source": source or str(self.folder / "photos"),
                "at_once": at_once,
            }
        )
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
        ids = [row for _, found in Parts(Folder(str(self.folder / "run" / "parts"))).ids() for row in found]
        assert len(ids) == len(set(ids))
        return len(ids)


def job(folder: Path, described: dict) -> None:
    """The driver."""
    options = described["options"] | {"label_selector": tuple(described["options"]["label_selector"])}
    connect()
    notes = folder / "notes"
    stages = [Models(**one).stage(notes) for one in described["models"]]
    try:
        placement = Placement(ClusterOptions(**options), stages)
    except UsageError as error:
        sys.exit(f"refused: {error}")
    run = Run(Folder(str(folder / "run")), "parts", LOADED)
    run.list_photos(Source(described["source"], S3Options()))
    load = LoadOptions(DecodeOptions(View(16)), FetchOptions(concurrency=described["at_once"]))
    work = Stream(run, load, placement, functools.partial(noted, notes)).work()
    print(f"{work.photos} photos done at {work.rate:.1f} photos/s, {run.reconcile()} missing")


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
    """Two nodes of two GPUs and a head without CPUs: the cheap stage has two actors, the dear one four, over two lanes."""
    scene = Scene(folder, 60)
    node = {"num_cpus": 4, "num_gpus": 2}
    with nodes({"num_cpus": 0}, node, node) as (cluster, _):
        cheap, dear = Models("cheap", share=0.25, cost=8, actors=2), Models("dear", cost=16, actors=4)
        status = scene.start(cluster.address, ClusterOptions(batch_size=2, lanes=2), cheap, dear).wait(200)
        head = cluster.head_node.node_id
    places = {name: scene.places(name) for name in ("cheap", "dear", "writer")}
    return {"status": status, "head": head, "places": places, "rows": scene.rows()}


def lanes(folder: Path) -> dict:
    """Three lanes, each with a node, of which one is killed amid its work: what it had to do is done again, and nothing twice."""
    scene = Scene(folder, 400)
    node = {"num_cpus": 1, "num_gpus": 1}
    with nodes({"num_cpus": 0}, node, node, node) as (cluster, _):
        running = scene.start(cluster.address, ClusterOptions(batch_size=4, lanes=3), Models("judge", seconds=0.05))
        until(lambda: scene.rows() > 80, "the first rows")
        told = json.loads((folder / "run" / "status.json").read_bytes())
        killed = [
            one for one in psutil.process_iter(["cmdline"]) if "_LaneActor" in " ".join(one.info["cmdline"] or [])
        ]
        killed[0].kill()
        status = running.wait(200)
    return {"status": status, "rows": scene.rows(), "lanes": len(killed), "told": told, "log": scene.log}


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


def shared(folder: Path) -> dict:
    """Two jobs on four GPUs: the second finds two of them taken, goes on with the others, and has all when the first has ended."""
    first, second = Scene(folder / "first", 150), Scene(folder / "second", 900)
    with nodes({"num_cpus": 0}, {"num_cpus": 8, "num_gpus": 4}) as (cluster, _):
        one = first.start(cluster.address, ClusterOptions(gpus=2, batch_size=4), Models("judge", seconds=0.5))
        until(lambda: len(first.places("judge")) == 2, "the first job's models")
        options = ClusterOptions(adapt_minutes=0.02, batch_size=4)
        two = second.start(cluster.address, options, Models("judge", seconds=0.3))
        until(lambda: len(second.places("judge")) == 2, "the second job's models")
        beside = one.poll() is None
        status = one.wait(200)
        until(lambda: "are left; 4 judge actors" in second.log, "all GPUs")
        statuses = [status, two.wait(300)]
    return {"statuses": statuses, "side_by_side": beside, "rows": [first.rows(), second.rows()]}


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


HEAD, OTHER = "198.51.100.1", "198.51.100.2"
"""Addresses of two machines that a namespace makes of this one."""


@contextmanager
def apart(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster of two nodes that see each other over a network, and of which each has its own ``folder/disk``:
    the second's is ``folder/other``. Wants root."""
    name = f"geoloc-{os.getpid()}"
    run = functools.partial(subprocess.run, check=True, timeout=30)
    inside = ["ip", "netns", "exec", name]
    ray_start = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=2", "--disable-usage-stats"]
    (folder / "disk").mkdir()
    (folder / "other").mkdir()
    run(["ip", "netns", "add", name])
    session, started = tempfile.mkdtemp(), []  # of a short name: Ray's sockets lie in it
    try:
        run(["ip", "link", "add", "geoloc0", "type", "veth", "peer", "name", "geoloc1", "netns", name])
        run(["ip", "addr", "add", f"{HEAD}/24", "dev", "geoloc0"])
        run(["ip", "link", "set", "geoloc0", "up"])
        run([*inside, "ip", "addr", "add", f"{OTHER}/24", "dev", "geoloc1"])
        for device in ("geoloc1", "lo"):
            run([*inside, "ip", "link", "set", device, "up"])
        mounted = f"mount --bind {folder}/other {folder}/disk && exec"
        head = [*ray_start, "--head", f"--node-ip-address={HEAD}", "--port=6411", "--include-dashboard=false"]
        head += [f"--temp-dir={session}"]
        other = [*ray_start, f"--address={HEAD}:6411", f"--node-ip-address={OTHER}"]
        for command in (head, [*inside, "unshare", "--mount", "sh", "-c", f"{mounted} {' '.join(other)}"]):
            with (folder / f"ray-{len(started)}").open("w") as log:
                started.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
            until(lambda: "runtime started" in (folder / f"ray-{len(started) - 1}").read_text(), "a node")
        yield f"{HEAD}:6411"
    finally:
        for process in started:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        run(["ip", "netns", "del", name])
        shutil.rmtree(session, ignore_errors=True)


def disks(folder: Path) -> dict:
    """The archive job over two machines with disks of their own: local paths are refused, a bucket's index is copied once to each."""
    folder.mkdir(parents=True)
    server = ThreadedMotoServer(HEAD, 6412, verbose=False)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    environment["AWS_ENDPOINT_URL"] = f"http://{HEAD}:6412"
    environment |= {"GEOLOC_CACHE": f"{folder}/disk/cache", "HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "disabled"}
    planet, disk = Planet(cities=12, countries=4, continents=3), folder / "disk"
    with apart(folder, environment) as address:
        server.start()
        os.environ |= environment
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        write_references(disk / "references", planet, 60)
        write_archive(disk / "archive", disk / "truth.csv", planet, 40)
        for file in sorted(disk.rglob("*.*")):
            client.upload_file(str(file), "bucket", file.relative_to(disk).as_posix())

        def job(name: str, *arguments: str) -> tuple[int, str]:
            command = [sys.executable, f"jobs/{name}.py", *arguments]
            given = environment | {"RAY_ADDRESS": address}
            done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=200)
            with (folder / "log").open("a") as log:
                log.write(done.stdout + done.stderr)
            return done.returncode, done.stderr

        bucket = "s3://bucket"
        made, _ = job("build_index", f"{bucket}/references", f"{bucket}/index", "--encoder", "lite")
        archive = ["--recipe", "lite", "--index", f"{bucket}/index"]
        refused = job("geotag_archive", f"{bucket}/archive", f"{disk}/out", *archive)
        located, said = job("geotag_archive", f"{bucket}/archive", f"{bucket}/out", *archive)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        opened = ray.remote(num_cpus=0)(local_copy)
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()] * 2
        ray.get([opened.options(scheduling_strategy=at).remote(Folder(f"{bucket}/index")) for at in there])
        ray.shutdown()
        server.stop()
    copies = {side: len(list((folder / side / "cache" / "index").glob("*/index.json"))) for side in ("disk", "other")}
    plan = re.search(r"\d+ retriever actors?", said)
    return {"made": made, "refused": refused, "located": located, "plan": plan and plan[0], "copies": copies}


def _main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "job":
        job(folder, json.loads(sys.argv[3]))
        return
    try:
        print(
            json.dumps(
                {
                    "gpus": gpus,
                    "lanes": lanes,
                    "change": change,
                    "autoscaled": autoscaled,
                    "disks": disks,
                    "shared": shared,
                }[command](folder)
            )
        )
    finally:
        if (folder / "log").exists():
            print((folder / "log").read_text(), file=sys.stderr)


if __name__ == "__main__":
    _main()
