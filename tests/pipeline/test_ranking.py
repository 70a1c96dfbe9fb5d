"""The archive job with a ranker, on a real cluster."""

from collections import Counter

import pyarrow as pa
import pytest
from PIL import Image

from geoloc.errors import UsageError
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.recipes.options import RecipeOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive
from tests.conftest import with_recipe

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def options(planet, toy_index, toy_base, toy_adapter, tmp_path_factory) -> ArchiveOptions:
    root = tmp_path_factory.mktemp("ranked")
    write_archive(root / "archive", root / "truth.csv", planet, 24)
    Image.new("RGB", (2100, 10), "teal").save(root / "archive" / "ribbon.png")
    recipe = {"recipe": "georanker-retrieved", "encoder": "lite", "index": str(toy_index), "candidates": 8}
    recipe |= {"ranker_model": str(toy_base), "ranker_adapter": str(toy_adapter)}
    return ArchiveOptions(str(root / "archive"), str(root / "out"), RecipeOptions(**recipe), context="off")


def test_an_archive_is_ranked(options, caplog):
    caplog.set_level("INFO", "geoloc")
    assert geotag_archive(options) == 0
    rows = pa.concat_tables(Parts(Folder(options.output) / "geotags").tables()).to_pylist()
    methods = Counter(row["method"] for row in rows if row["status"] == "located")
    assert methods.pop("top1 (ranking failed)") == 1
    assert set(methods) == {"georanker"}
    for row in rows:
        if row["method"] == "georanker":
            scores = [candidate["score"] for candidate in row["candidates"]]
            assert len(scores) == 6
            assert scores == sorted(scores, reverse=True)
            assert row["lat"] == row["candidates"][0]["lat"]
    [ribbon] = [row for row in rows if row["uri"].endswith("ribbon.png")]
    assert (ribbon["status"], ribbon["error_kind"]) == ("located", "no_picture")
    assert "1 georanker actor (CPU" in caplog.text
    assert "Answers by: georanker" in caplog.text
    assert b"ranking failed" in Folder(options.output).read("report.html")


def test_it_goes_on_only_with_the_same_ranker(options):
    for change, match in (
        ({"ranker_max_pixels": 3136}, "georanker.prompt.max_pixels was 7056, is now 3136"),
        ({"skip_ranking_within_km": 25.0}, "georanker.skip_within_km was None, is now 25.0"),
        (
            {"recipe": "lite", "ranker_model": None, "ranker_adapter": None},
            r"method.georanker is gone; method.scorers was \['top1', 'georanker'\], is now \['top1'\]",
        ),
    ):
        with pytest.raises(UsageError, match=match):
            geotag_archive(with_recipe(options, **change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"recipe": "lite"}, r"--ranker-model .*: recipe lite has no GeoRanker; --recipe georanker-retrieved has"),
        ({"ranker_model": None}, "--ranker-model: a recipe with georanker needs it"),
        ({"ranker_adapter": None}, "--ranker-adapter: a recipe with georanker needs it"),
        (
            {"ranker_candidates": 7},
            "--candidates 8: the ranker's prompt tells 2 of them as negatives, and it cannot rank 7",
        ),
        ({"skip_ranking_within_km": -1.0}, "--skip-ranking-within-km -1.0"),
        ({"ranker_model": "/nowhere"}, "--ranker-model /nowhere: cannot load its processor"),
        ({"ranker_adapter": "/nowhere"}, "--ranker-adapter /nowhere: cannot read it"),
    ],
)
def test_a_ranker_that_cannot_be_used(options, tmp_path, change, match):
    with pytest.raises(UsageError, match=match):
        geotag_archive(with_recipe(options, output=str(tmp_path / "out"), **change))
