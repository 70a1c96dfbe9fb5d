"""A light ranker from an index to an archive's answers."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from geoloc.errors import UsageError
from geoloc.index.build import write_index
from geoloc.index.store import IndexInfo, checksum, read_info
from geoloc.pipeline import light
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions, IndexOptions, LightOptions
from geoloc.pipeline.references import build_index
from geoloc.ranking.light_folder import read_light
from geoloc.recipes.options import RecipeOptions
from geoloc.schema import REFERENCE
from geoloc.storage import Folder
from tests.pipeline.archives import rows_of

D = 16


CITIES = 60


def made_up_index(path, photos: int = 1_200, authors: int = 240, seed: int = 0, among: range = range(CITIES)) -> str:
    """Photos of some of the cities, whose looks are drawn at random; that of one in two is of another city's kind, and lies there alone."""
    random = np.random.default_rng(seed)
    looks = np.random.default_rng(99).normal(0, 1, (CITIES, D))
    where = np.random.default_rng(98).uniform([-50, -170], [60, 170], (CITIES, 2))
    city = random.choice(among, photos)
    seen = np.where(random.random(photos) < 0.5, city, random.integers(0, CITIES, photos))
    vectors = looks[seen] + random.normal(0, 0.35, (photos, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = where[city] + random.normal(0, 0.05, (photos, 2))
    columns = {
        "id": np.arange(photos),
        "uri": [f"/{seed}/{n}.jpg" for n in range(photos)],
        "lat": places[:, 0],
        "lon": places[:, 1],
        "place": [{"country_code": "X", "region": f"r{c // 4}"} for c in city],
        "author": [f"p{n}" for n in random.integers(0, authors, photos)],
        "vector": list(vectors.astype(np.float32)),
    }
    columns |= {field.name: [None] * photos for field in REFERENCE if field.name not in columns}
    info = IndexInfo("photos", "encoder-1", "lite", "m", photos, D)
    write_index(path, info, [pa.table({name: columns[name] for name in REFERENCE.names}, schema=REFERENCE)])
    return str(path)


def train(source, output, steps: int = 150, **options) -> None:
    assert light.train_light(LightOptions(str(source), str(output), steps=steps, **options)) == 0


def figures(folder) -> dict[str, dict]:
    rows = pa.csv.read_csv(folder / "table.csv").to_pylist()
    return {row["run"]: row for row in rows}


def test_a_network_that_counts_neighbours_beats_the_most_similar(tmp_path):
    """Half of the photos look like another city's: where several similar ones agree is where it was taken."""
    train(made_up_index(tmp_path / "index"), tmp_path / "light", steps=60)
    found, judged = read_light(Folder(str(tmp_path / "light"))), figures(tmp_path / "light")
    assert (found.model, found.kinds, found.photos, found.authors) == ("network", ("photos",), 1_200, 239)
    assert judged["light ranker"]["acc_25km"] > judged["index 1 (photos): most similar"]["acc_25km"] + 5
    assert judged["nearest place"]["acc_25km"] >= judged["light ranker"]["acc_25km"]
    assert found.learned_without["acc_25km"] == pytest.approx(judged["light ranker"]["acc_25km"], abs=0.01)
    assert (tmp_path / "light" / "report.html").exists()


def test_what_each_kind_of_evidence_is_worth(tmp_path):
    train(made_up_index(tmp_path / "index", 300), tmp_path / "light", steps=3, ablations=True)
    without = [name for name in figures(tmp_path / "light") if name.startswith("light, without")]
    assert without == ["light, without regions", "light, without support", "light, without similarity"]


def test_of_few_photos_or_photographers_it_is_the_fixed_rule_and_says_so(tmp_path, caplog):
    index = made_up_index(tmp_path / "index", authors=150)
    train(index, tmp_path / "light", steps=5)
    assert read_light(Folder(str(tmp_path / "light"))).model == "rule"
    assert "150 known photographers are too few" in caplog.text
    train(index, tmp_path / "less", steps=5, photos=100)
    assert "100 photos are too few" in caplog.text
    assert not (tmp_path / "less" / "light.safetensors").exists()


def test_photos_by_nobody_known_are_not_asked_about_and_many_make_no_network(tmp_path, caplog):
    index = made_up_index(tmp_path / "index", photos=1_500)
    file = tmp_path / "index" / "candidates.parquet"
    table = pq.read_table(file)
    author = pa.array([name if n < 1_200 else None for n, name in enumerate(table["author"].to_pylist())])
    pq.write_table(table.set_column(table.schema.get_field_index("author"), "author", author), file)
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    record["files"][file.name] |= {"bytes": file.stat().st_size, "blake2b": checksum(file)}
    (tmp_path / "index" / "index.json").write_text(json.dumps(record))
    train(index, tmp_path / "light", steps=40)
    found = read_light(Folder(str(tmp_path / "light")))
    assert (found.model, found.photos) == ("rule", 1_200)
    assert "of 20% of the index's photos nobody knows who took them" in caplog.text


def test_two_indexes_find_more_than_either(tmp_path):
    asked = made_up_index(tmp_path / "asked", 200, seed=1)
    halves = range(CITIES // 2), range(CITIES // 2, CITIES)
    one, two = (made_up_index(tmp_path / str(half.start), 300, seed=2, among=half) for half in halves)
    best = {}
    for name, indexes in (("one", (one,)), ("two", (two,)), ("both", (one, two))):
        train(asked, tmp_path / name, index=indexes, places=10, steps=5)
        best[name] = figures(tmp_path / name)["nearest place"]["acc_25km"]
    assert best["both"] > max(best["one"], best["two"]) + 10
    assert read_light(Folder(str(tmp_path / "both"))).kinds == ("photos", "photos")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"places": 0}, "--places 0: must be at least 1"),
        ({"places": 30, "depth": 20}, "--places 30: must not be above --depth 20"),
        ({"depth": 3_000}, "--depth 3000: must not be above 2048"),
        ({"index": ("gallery",)}, "encoder lite has no gallery"),
        ({"index": ("/nowhere",)}, r"no index\.json"),
        ({"source": "/nowhere"}, r"no index\.json"),
    ],
)
def test_what_cannot_be(tmp_path, changes, message):
    given = {"source": made_up_index(tmp_path / "index", 30), "output": str(tmp_path / "out")} | changes
    with pytest.raises(UsageError, match=message):
        light.train_light(LightOptions(**given))


def test_vectors_that_hold_the_answer_are_not_asked_about(tmp_path):
    index = made_up_index(tmp_path / "index", 30)
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(record | {"vectors": "multimodal"}))
    with pytest.raises(UsageError, match="its vectors hold photos' coordinates"):
        light.train_light(LightOptions(index, str(tmp_path / "out")))


def test_an_index_of_another_encoder_is_refused(tmp_path):
    one, other = made_up_index(tmp_path / "one", 30), made_up_index(tmp_path / "other", 30)
    record = json.loads((tmp_path / "other" / "index.json").read_text())
    (tmp_path / "other" / "index.json").write_text(json.dumps(record | {"weights": "encoder-2"}))
    with pytest.raises(UsageError, match="was made with another encoder"):
        light.train_light(LightOptions(one, str(tmp_path / "out"), index=(one, other)))


@pytest.fixture(scope="module")
def two_indexes(toy, toy_index, tmp_path_factory) -> list[str]:
    """The toy's, and one of the archive's own photos that carry their place."""
    own = tmp_path_factory.mktemp("own") / "index"
    assert build_index(IndexOptions(str(toy / "archive"), str(own), encoder="lite")) == 0
    return [str(toy_index), str(own)]


def test_an_archive_is_located_with_it_and_with_two_indexes(toy, two_indexes, tmp_path):
    train(two_indexes[0], tmp_path / "light", index=tuple(two_indexes), places=8, depth=30, steps=5)
    recipe = RecipeOptions(recipe="lite", index=tuple(two_indexes), candidates=8, light_ranker=str(tmp_path / "light"))
    options = ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), recipe, context="off")
    assert geotag_archive(options) == 0
    located = [row for row in rows_of(options) if row["status"] == "located"]
    assert len(located) > 20
    assert {row["method"] for row in located} == {"light"}
    uris = {candidate["reference"] for row in located for candidate in row["candidates"]}
    assert any(uri.startswith(str(toy / "references")) for uri in uris)
    assert any(uri.startswith(str(toy / "archive")) for uri in uris)
    for row in located:
        scores = [candidate["score"] for candidate in row["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert row["lat"] == row["candidates"][0]["lat"]
    (tmp_path / "north.yaml").write_text(
        yaml.safe_dump(
            {
                "encoder": "lite",
                "retrieval": {"index": two_indexes, "candidates": 8},
                "scorers": [
                    {"kind": "light", "folder": str(tmp_path / "light")},
                    {"kind": "tests.recipes.third_party:North", "most": 3},
                ],
            }
        )
    )
    ranked = RecipeOptions(recipe=str(tmp_path / "north.yaml"))
    ranked = ArchiveOptions(str(toy / "archive"), str(tmp_path / "ranked"), ranked, context="off")
    assert geotag_archive(ranked) == 0
    first = {row["uri"]: {(c["lat"], c["lon"]) for c in row["candidates"][:3]} for row in located}
    for row in rows_of(ranked):
        if row["method"] == "north":  # a ranker after it has those that it put first
            assert {(c["lat"], c["lon"]) for c in row["candidates"]} == first[row["uri"]]
    refused = recipe.model_copy(update={"index": (two_indexes[0],)})
    with pytest.raises(UsageError, match="learned from indexes of photos, photos, in this order"):
        geotag_archive(ArchiveOptions(str(toy / "archive"), str(tmp_path / "other"), refused))


@pytest.mark.slow
def test_an_archives_own_photos_are_an_index_that_is_made_first(toy, toy_index, tmp_path):
    """Without a light ranker, two indexes are in the order of similarity."""
    recipe = RecipeOptions(recipe="lite", index=(str(toy_index), "self"), candidates=6)
    options = ArchiveOptions(str(toy / "archive"), str(tmp_path / "out"), recipe, context="off")
    with pytest.raises(UsageError, match="--index self: photos that carry GPS would find themselves"):
        geotag_archive(dataclasses.replace(options, relocate=True))
    assert geotag_archive(options) == 0
    rows = rows_of(options)
    own = read_info(Folder(str(tmp_path / "out" / "self")))
    assert own.rows == sum(row["status"] == "kept" for row in rows)
    located = [row for row in rows if row["status"] == "located"]
    for row in located:
        similarity = [candidate["similarity"] for candidate in row["candidates"]]
        assert similarity == sorted(similarity, reverse=True)
    found = {candidate["reference"] for row in located for candidate in row["candidates"]}
    assert found & {row["uri"] for row in rows if row["status"] == "kept"}
    assert geotag_archive(options) == 0  # nothing is made again
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"]["method"]["index"].endswith(f"+{own.fingerprint}")
