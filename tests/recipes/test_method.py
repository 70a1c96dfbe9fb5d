"""A third party's ranker in the archive, in an evaluation and in the service's stages: its own module, and nothing else."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import UsageError
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import load_one
from geoloc.pipeline.archive import geotag_archive
from geoloc.pipeline.evaluation import evaluate_runs
from geoloc.pipeline.job_options import ArchiveOptions, EvaluationOptions
from geoloc.pipeline.options import LocateOptions
from geoloc.recipes.method import Method
from geoloc.recipes.options import RankerOverrides, RecipeOptions
from geoloc.results.parts import Parts
from geoloc.serving.options import S3, ModelOptions
from geoloc.serving.stages import Ranking, Retrieval
from geoloc.settings import differences
from geoloc.storage import Folder
from tests.recipes.third_party import NORTH

pytestmark = pytest.mark.usefixtures("ray_cluster")
RECIPE = "tests.recipes.third_party:north"


@pytest.fixture(scope="module")
def run(toy, toy_index, tmp_path_factory):
    """An archive that the third party's recipe has located."""
    output = tmp_path_factory.mktemp("north") / "run"
    method = RecipeOptions(recipe=RECIPE, index=str(toy_index), candidates=8)
    assert geotag_archive(ArchiveOptions(str(toy / "archive"), str(output), method, context="off")) == 0
    return output


def rows(run) -> list[dict]:
    return pa.concat_tables(Parts(Folder(str(run / "geotags"))).tables()).sort_by("id").to_pylist()


def test_it_ranks_an_archive(run):
    found = [row for row in rows(run) if row["status"] == "located"]
    assert {row["method"] for row in found} == {"north"}
    for row in found:
        scores = [candidate["score"] for candidate in row["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 8
        # scores are -|lat - brightest| / 10 of one picture: of two candidates' scores and latitudes follow the picture's
        lats = np.array([candidate["lat"] for candidate in row["candidates"]])
        brightest = lats[0] + np.array([-1, 1]) * scores[0] * 10
        expected = [-np.abs(lats - at) / 10 for at in brightest]
        assert min(np.abs(e - scores).max() for e in expected) < 1e-3


@pytest.mark.slow
def test_the_record_repeats_the_run(run, toy, tmp_path):
    again = ArchiveOptions(
        str(toy / "archive"), str(tmp_path / "again"), RecipeOptions(recipe=str(run / "run.json")), context="off"
    )
    assert geotag_archive(again) == 0
    assert rows(tmp_path / "again") == rows(run)
    other = RecipeOptions(recipe=str(run / "run.json"), chooser="density")
    with pytest.raises(UsageError, match=r"scorers was \['top1', 'north'\], is now \['density', 'north'\]"):
        geotag_archive(ArchiveOptions(again.source, again.output, other))


@pytest.mark.slow
def test_recipes_are_compared_over_shared_features(run, toy, toy_index, tmp_path):
    """Each says what the archive job says by it; the third party's beside the one it is made from."""
    recipes = ("lite", RECIPE)
    locate = LocateOptions(str(toy / "archive"), recipes, RankerOverrides(index=str(toy_index)), candidates=(8,))
    options = EvaluationOptions((str(toy / "truth.csv"), str(tmp_path / "out")), locate=locate)
    assert evaluate_runs(options) == 0
    with (tmp_path / "out" / "table.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["lite: top1 of 8", "north: top1 of 8"]
    found = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    by_north = {row["id"]: (row["lat"], row["lon"]) for row in found if row["run"].startswith("north")}
    checked = 0
    for row in rows(run):
        if row["status"] == "located":
            assert by_north[row["uri"]] == (row["lat"], row["lon"])
            checked += 1
    assert checked > 20


def test_the_service_has_the_same_stages(run, toy, toy_index):
    options = ModelOptions(recipe=RECIPE, index=str(toy_index), candidates=8)
    retrieval, ranking = Retrieval(options), Ranking(options)
    assert retrieval.facts["scorers"] == ["top1", "north"]
    assert retrieval.facts["weights"]["north"] == "north-1"
    assert ranking.check([None, None]) == [None, None]
    expected = next(row for row in rows(run) if row["status"] == "located")
    with Decoder(DecodeOptions(retrieval.view, picture_view=retrieval.picture_view)) as decoder:
        loaded = load_one(Path(expected["uri"]).read_bytes(), decoder)
    [row] = ranking.rank(retrieval.locate([loaded]))[0].to_pylist()
    assert (row["method"], row["lat"], row["lon"]) == ("north", expected["lat"], expected["lon"])


def test_settings_are_those_that_decide_results(toy_index, tmp_path):
    """Of two recipes, the settings differ where answers may, and not in what things are called or where they lie."""

    def settings(**changes) -> dict:
        options = RecipeOptions(**{"recipe": RECIPE, "index": str(toy_index)} | changes)
        return Method.find(options.read(S3), Folder(str(tmp_path))).settings({"encoder": "e"})

    first = settings()
    assert first["index"] != str(toy_index)
    assert first["north"] == {"bias": 5.0, "most": None}
    (tmp_path / "other.yaml").write_text(
        f"name: other\nencoder: lite\nretrieval: {{index: {toy_index}}}\nscorers: [{{kind: '{NORTH}', bias: 5}}]\n"
        f"calibration: {tmp_path}\n"
    )
    assert differences(first, settings(recipe=str(tmp_path / "other.yaml"))) == []
    assert differences(first, settings(candidates=5)) == ["candidates was 20, is now 5"]
    assert differences(first, settings(chooser="density")) == [
        "density is new",
        "scorers was ['top1', 'north'], is now ['density', 'north']",
        "top1 is gone",
    ]
