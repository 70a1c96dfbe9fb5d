"""The archive job with a ranker, on a real cluster."""

import dataclasses
from collections import Counter

import pyarrow as pa
import pytest
from PIL import Image

from geoloc.errors import UsageError
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.pipeline.options import RankingOptions
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def options(planet, toy_index, toy_base, toy_adapter, tmp_path_factory) -> ArchiveOptions:
    root = tmp_path_factory.mktemp("ranked")
    write_archive(root / "archive", root / "truth.csv", planet, 24)
    Image.new("RGB", (2100, 10), "teal").save(root / "archive" / "ribbon.png")
    ranking = RankingOptions("georanker", str(toy_base), str(toy_adapter))
    return ArchiveOptions(
        str(root / "archive"), str(root / "out"), str(toy_index), encoder="lite", candidates=8, ranking=ranking
    )


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
    assert "1 ranker actor (CPU" in caplog.text
    assert "Answers by: georanker" in caplog.text
    assert b"ranking failed" in Folder(options.output).read("report.html")


def test_it_goes_on_only_with_the_same_ranker(options):
    for change, match in (
        ({"ranker_max_pixels": 3136}, "ranker_prompt was"),
        ({"skip_ranking_within_km": 25.0}, "skip_ranking_within_km was None, is now 25.0"),
        ({"ranker": None, "ranker_model": None, "ranker_adapter": None}, "ranker was '.*', is now None"),
    ):
        with pytest.raises(UsageError, match=match):
            geotag_archive(dataclasses.replace(options, ranking=dataclasses.replace(options.ranking, **change)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ranker": None}, r"--ranker-model .*: is about the ranker; add --ranker georanker"),
        ({"ranker_model": None}, "--ranker georanker: needs --ranker-model"),
        ({"ranker_adapter": None}, "--ranker georanker: needs --ranker-adapter"),
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
    ranking = dataclasses.replace(options.ranking, **change)
    with pytest.raises(UsageError, match=match):
        geotag_archive(dataclasses.replace(options, output=str(tmp_path / "out"), ranking=ranking))
