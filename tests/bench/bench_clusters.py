"""Ten clusters, made up on this machine, and what becomes of a job on each; and how a job that waits for a slow store scales.

python -m tests.bench.bench_clusters [plans] [changes] [scaling]
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import boto3

from geoloc.pipeline.options import ClusterOptions
from tests.bench.faulty_s3 import Weather, faulty_s3
from tests.nodes import Models, Scene, autoscaled, change, nodes, shared

LIMIT_S = 240
RETRIEVER, RANKER = Models("retriever", share=0.25), Models("ranker", cost=16)
CLUSTERS: list[tuple[str, list[tuple[int, int]], dict, list[Models]]] = [
    ("2 nodes of 4 CPUs", [(4, 0)] * 2, {}, [RETRIEVER]),
    ("10 nodes of 4 CPUs", [(4, 0)] * 10, {}, [RETRIEVER]),
    ("1 node of 96 CPUs and 8 GPUs", [(96, 8)], {}, [RETRIEVER]),
    ("the same, with a ranker", [(96, 8)], {}, [RETRIEVER, RANKER]),
    ("3 such nodes, an index over 4 GPUs", [(96, 8)] * 3, {"gpus_per_actor": 4}, [RETRIEVER]),
    ("12 mixed nodes, with a ranker", [(16, 0)] * 8 + [(48, 4)] * 2 + [(8, 1)] * 2, {}, [RETRIEVER, RANKER]),
    ("2 GPUs, 4 wanted", [(16, 2)], {"gpus": 4}, [RETRIEVER]),
    ("2 GPUs, 4 wanted, 1 would do", [(16, 2)], {"gpus": 4, "min_gpus": 1}, [RETRIEVER]),
    ("2 nodes of 1 GPU, an index over 2", [(8, 1)] * 2, {"gpus_per_actor": 2}, [RETRIEVER]),
    ("3 nodes without CPUs", [(0, 0)] * 3, {}, [RETRIEVER]),
]
LATENCY_S, AT_ONCE, SCALED_PHOTOS = 0.05, 2, 2_000
"""Of the store; requests of a loading task; and photos a node."""


def main(chosen: list[str]) -> None:
    if not chosen or "plans" in chosen:
        plans()
    if not chosen or "changes" in chosen:
        changes()
    if not chosen or "scaling" in chosen:
        scaling()


def plans() -> None:
    print("| cluster, beside a head without CPUs | what becomes of 200 photos | seconds |\n|---|---|---|")
    for name, shapes, options, models in CLUSTERS:
        others = [{"num_cpus": cpus, "num_gpus": gpus} for cpus, gpus in shapes]
        with tempfile.TemporaryDirectory() as folder, nodes({"num_cpus": 0}, *others) as (cluster, _):
            scene, start = Scene(Path(folder) / "scene", 200), time.monotonic()
            scene.start(cluster.address, ClusterOptions(**options), *models).wait(LIMIT_S)
            said = re.search(r"To do: 200 photos; (.*)|(refused: .*)", scene.log)
            done = re.search(r"(\d+) photos done.*, (\d+) missing", scene.log)
            ending = f": {done[1]} done, {done[2]} missing" if done else ""
            print(f"| {name} | {said[1] or said[2]}{ending} | {time.monotonic() - start:.0f} |", flush=True)


def changes() -> None:
    """Clusters that change under a job: what comes out says that the job was done, and where."""
    for scenario in (autoscaled, change, shared):
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            found = scenario(Path(folder) / "scene")
            print(f"{' '.join(scenario.__doc__.split())}\n    {time.monotonic() - start:.0f} s: {found}", flush=True)


def scaling() -> None:
    """Each node has one logical CPU: half for a stand-in, half for one loading task."""
    weather, rates = Weather(latency_s=LATENCY_S), {}
    with tempfile.TemporaryDirectory() as folder, faulty_s3(weather, "photos") as endpoint:
        os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        for count in (1, 2, 4):
            scene = Scene(Path(folder) / str(count), SCALED_PHOTOS * count)
            for file in (scene.folder / "photos").iterdir():
                client.upload_file(str(file), "photos", f"{count}/{file.name}")
            with nodes({"num_cpus": 0}, *[{"num_cpus": 1}] * count) as (cluster, _):
                at = {"source": f"s3://photos/{count}/", "at_once": AT_ONCE}
                scene.start(cluster.address, ClusterOptions(), Models("judge"), **at).wait(600)
            rates[count] = float(re.search(r"at ([\d.]+) photos/s", scene.log)[1])
            print(
                f"{count} nodes: {rates[count]:.1f} photos/s, efficiency {rates[count] / rates[1] / count:.2f} (a store of "
                f"{1000 * LATENCY_S:.0f} ms and {AT_ONCE} requests at once: at most {AT_ONCE / LATENCY_S * count:.0f})",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
