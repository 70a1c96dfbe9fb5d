"""The stream on a real cluster, with stand-ins for the models."""

import functools
import os
import re
import resource
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from PIL import Image

from geoloc.errors import UsageError
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.views import Picture, View
from geoloc.pipeline.cluster import connect
from geoloc.pipeline.options import ClusterOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Stage
from tests.pipeline.archives import run_of


@dataclass(frozen=True)
class DeadlyView(View):
    """Decoding a picture 13 pixels wide kills the process, as a broken decoder would."""

    def of(self, picture: Picture) -> Image.Image:
        if picture.size[0] == 13:
            os._exit(1)
        return super().of(picture)


def statuses(device: str, threads: int):
    def answer(batch: pa.Table) -> pa.Table:
        status = [value or "located" for value in batch["status"].to_pylist()]
        return pa.table({"id": batch["id"], "status": status, "error_kind": batch["error_kind"]})

    return answer


@pytest.mark.usefixtures("ray_cluster")
def test_photos_that_kill_their_process_are_rows_with_a_reason(tmp_path):
    run = run_of(tmp_path, 60, dict.fromkeys((7, 8, 44), 13))
    connect()
    placement = Placement(ClusterOptions(), [Stage("judge", statuses)])
    stream = Stream(run, LoadOptions(DecodeOptions(DeadlyView(16))), placement)
    assert stream.work().photos == 60
    rows = [row for table in run.parts.tables() for row in table.to_pylist()]
    assert sorted(row["id"] for row in rows) == list(range(60))
    assert {row["id"] for row in rows if row["error_kind"] == "crashed"} == {7, 8, 44}
    assert run.reconcile() == 0
    told = prometheus_is_told(run.folder.uri)
    assert told['ray_geoloc_photos_total{status="located"}'] == 57
    assert told['ray_geoloc_photos_total{status="failed"}'] == 3
    assert told["ray_geoloc_photos_left{}"] == 0
    drawn = {name for name in DASHBOARD if "geoloc" in name}
    assert drawn <= {name.split("{")[0] for name in told} | {"ray_geoloc_stage_seconds_total"}  # these rows have none
    assert told["ray_geoloc_fetched_bytes_total{}"] > 0  # of all runs


DASHBOARD = set(re.findall(r"\bray_\w+", Path("cluster/grafana-geoloc.json").read_text()))
"""Metrics."""


def prometheus_is_told(output: str) -> dict[str, float]:
    """What Ray exports of a run, when all of it has come."""
    deadline = time.monotonic() + 60
    while True:
        found = {}
        for node in ray.nodes():
            with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as answer:
                text = answer.read().decode()
            for name, labels, value in re.findall(r"^(ray_geoloc_\w+){(.*)} (\S+)$", text, re.MULTILINE):
                tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                if tags.get("output", output) == output:
                    own = ",".join(f'{tag}="{tags[tag]}"' for tag in ("status", "stage") if tag in tags)
                    found[f"{name}{{{own}}}"] = found.get(f"{name}{{{own}}}", 0) + float(value)
        if found.get("ray_geoloc_photos_left{}") == 0 and "ray_geoloc_fetched_bytes_total{}" in found:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(1)


def deadly(poison: int, device: str, threads: int):
    """Models whose process dies of one photo, as a library's fault, or the memory that it takes, would have it."""

    def answer(batch: pa.Table) -> pa.Table:
        for row in batch.to_pylist():
            if row["id"] == poison and row["status"] != "failed":
                os._exit(1)
        return statuses(device, threads)(batch)

    return answer


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_photo_that_models_die_of_is_a_row_with_a_reason(tmp_path):
    """And those beside it in its batch are not."""
    run = run_of(tmp_path, 24)
    connect()
    placement = Placement(ClusterOptions(batch_size=6), [Stage("judge", functools.partial(deadly, 9))])
    assert Stream(run, LoadOptions(DecodeOptions(View(16))), placement).work().photos == 24
    rows = [row for table in run.parts.tables() for row in table.to_pylist()]
    assert sorted(row["id"] for row in rows) == list(range(24))
    assert [(row["id"], row["error_kind"]) for row in rows if row["status"] == "failed"] == [(9, "crashed")]


def refused_at_first(notes: Path, table: pa.Table) -> pa.Table:
    """A store that is out of order for a while: the folder is none."""
    if not notes.exists():
        notes.touch()
        parts = notes.parent / "run" / "parts"
        parts.write_bytes(b"")
        threading.Timer(8, parts.unlink).start()
    return table


@pytest.mark.usefixtures("ray_cluster")
def test_a_store_that_is_out_of_order_is_waited_for(tmp_path):
    run = run_of(tmp_path, 1)
    connect()
    finish = functools.partial(refused_at_first, tmp_path / "notes")
    placement = Placement(ClusterOptions(), [Stage("judge", statuses)])
    assert Stream(run, LoadOptions(DecodeOptions(View(16))), placement, finish).work().photos == 1
    assert run.reconcile() == 0
    assert (tmp_path / "notes").exists()


def on_a_full_disk(table: pa.Table) -> pa.Table:
    """Files of this process end at so few bytes from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    return table


@pytest.mark.usefixtures("ray_cluster")
def test_a_full_disk_where_results_are_written_is_told_in_one_line(tmp_path):
    run = run_of(tmp_path, 1)
    connect()
    placement = Placement(ClusterOptions(), [Stage("judge", statuses)])
    stream = Stream(run, LoadOptions(DecodeOptions(View(16))), placement, finish=on_a_full_disk)
    with pytest.raises(UsageError) as caught:
        stream.work()
    assert re.fullmatch(
        r"/.*/parts: no space is left to write part-[\w-]+\.parquet \(File too large\)", str(caught.value)
    )
    assert not list((tmp_path / "run" / "parts").iterdir())
