"""The training set on a real cluster: from an index, and from a table as published."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geoloc.errors import UsageError
from geoloc.geo.distance import geodesic_km, haversine_km
from geoloc.index.store import Index
from geoloc.pipeline.georanking import build_georanking
from geoloc.pipeline.job_options import GeoRankingJobOptions
from geoloc.ranking.options import GeoRankingOptions
from geoloc.recipes.options import RetrievalOverrides

pytestmark = pytest.mark.usefixtures("ray_cluster")

ROWS = GeoRankingOptions(references=6, ranked=3)


@pytest.fixture(scope="module")
def source(toy, tmp_path_factory) -> Path:
    """Half of the index's own photos, one of them twice under other names, and one that is none."""
    path = tmp_path_factory.mktemp("source") / "photos.csv"
    photos = sorted((toy / "references").rglob("*.jpg"))[:30]
    copy = path.with_name("copy.jpg")
    copy.write_bytes(photos[0].read_bytes())
    path.with_name("broken.jpg").write_bytes(b"<html>")
    with path.open("w", newline="") as file:
        rows = [[str(photo)] for photo in photos] + [[str(copy)], [str(path.with_name("broken.jpg"))]]
        csv.writer(file).writerows([["uri"], *rows])
    return path


@pytest.fixture(scope="module")
def options(source, toy_index, tmp_path_factory) -> GeoRankingJobOptions:
    output = str(tmp_path_factory.mktemp("set") / "out")
    return GeoRankingJobOptions(str(source), output, "lite", RetrievalOverrides(index=str(toy_index)), rows=ROWS)


def rows_of(output: str) -> list[dict]:
    tables = [pq.read_table(path) for path in (Path(output) / "georanking").glob("*.parquet")]
    return pa.concat_tables(tables).sort_by("id").to_pylist()


@pytest.fixture(scope="module")
def built(options) -> list[dict]:
    assert build_georanking(options) == 0
    return rows_of(options.output)


def test_a_photo_with_its_references(built, toy_index):
    index = Index(toy_index)
    assert [row["status"] for row in built] == ["ready"] * 31 + ["failed"]
    assert built[-1]["error_kind"] == "not_an_image"
    names = [uri.rsplit("/", 1)[-1] for uri in index.uri.to_pylist()]
    for row in built[:31]:
        lat, lon = row["gps"]
        assert row["img_id"] == Path(row["uri"]).name
        assert [len(row[name]) for name in ("ref_gps", "ref_img_id", "ref_texts", "ref_km")] == [6] * 4
        at = [names.index(name) for name in row["ref_img_id"]]
        assert np.allclose(row["ref_gps"], np.stack([index.lat[at], index.lon[at]], axis=1))
        assert row["ref_km"] == pytest.approx(geodesic_km(lat, lon, index.lat[at], index.lon[at]).tolist())
        assert row["ref_images"] == [index.thumbnail(n) for n in at[:3]]
        assert all(words and all(words) for words in row["ref_texts"])
        assert max(Image.open(io.BytesIO(row["image"])).size) <= 448


def test_never_the_photo_itself(built):
    assert all(row["img_id"] not in row["ref_img_id"] for row in built[:30])
    copy = built[30]
    assert copy["ref_img_id"][0] == built[0]["img_id"]
    assert copy["ref_km"][0] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_nor_its_twin_on_demand(options, built, tmp_path):
    rows = dataclasses.replace(ROWS, twin_cosine=0.99, distance="haversine")
    other = dataclasses.replace(options, output=str(tmp_path / "out"), rows=rows)
    assert build_georanking(other) == 0
    copy = rows_of(other.output)[30]
    assert copy["ref_img_id"] == built[0]["ref_img_id"]
    at = np.array(copy["ref_gps"])
    assert copy["ref_km"] == pytest.approx(haversine_km(*copy["gps"], at[:, 0], at[:, 1]).tolist())


@pytest.mark.slow
def test_as_published(built, tmp_path):
    """The query is its own first reference there; words are kept as they are (geoloc.ranking.prompt tells some of them)."""
    (tmp_path / "images").mkdir()
    for row in built[:4]:
        (tmp_path / "images" / row["img_id"]).write_bytes(row["image"])
        for name, image in zip(row["ref_img_id"], row["ref_images"], strict=False):
            (tmp_path / "images" / name).write_bytes(image)
    published = [
        {
            "img_id": row["img_id"],
            "gps": row["gps"],
            "ref_gps": [row["gps"], *row["ref_gps"]],
            "ref_img_id": [row["img_id"], *row["ref_img_id"]],
            "ref_texts": [["Old Town", "City", "", "State", "", "Land"]] * 7,
        }
        for row in built[:4]
    ]
    pq.write_table(pa.Table.from_pylist(published), tmp_path / "GeoRanking.parquet")
    table = str(tmp_path / "GeoRanking.parquet")
    options = GeoRankingJobOptions(table, str(tmp_path / "out"), images=str(tmp_path / "images"), rows=ROWS)
    assert build_georanking(options) == 0
    for row, expected in zip(rows_of(options.output), built[:4], strict=True):
        assert row["status"] == "ready"
        assert row["ref_img_id"] == expected["ref_img_id"]
        assert row["ref_km"] == pytest.approx(expected["ref_km"])
        assert row["ref_texts"] == [["Old Town", "City", "", "State", "", "Land"]] * 6
        assert len(row["ref_images"]) == 3
        assert all(row["ref_images"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"retrieval": RetrievalOverrides()}, "--index: name the index to retrieve from, or"),
        ({"rows": GeoRankingOptions(references=5, ranked=6)}, "--ranked 6: must be from 1 to --references 5"),
        ({"rows": GeoRankingOptions(twin_cosine=2)}, "--twin-cosine 2: must be from -1 to 1"),
        (
            {"retrieval": RetrievalOverrides(), "images": "/nowhere"},
            r"SOURCE .*photos.csv: is no table with the columns img_id, gps",
        ),
        ({"rows": GeoRankingOptions(references=5, ranked=2)}, "references was 6, is now 5"),
    ],
)
def test_what_cannot_be_built(options, built, tmp_path, changes, match):
    output = options.output if match.startswith("references") else str(tmp_path / "out")
    with pytest.raises(UsageError, match=match):
        build_georanking(dataclasses.replace(options, **{"output": output} | changes))
