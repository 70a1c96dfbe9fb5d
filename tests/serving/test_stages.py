"""The archive's stages as the service puts them together."""

import numpy as np
import pytest

from geoloc.errors import UsageError
from geoloc.estimate.calibration import features, fit
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import load_one
from geoloc.recipes.method import check
from geoloc.serving.options import S3, ModelOptions
from geoloc.serving.stages import Retrieval, find_method


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": None}, "--index: encoder lite has no gallery"),
        ({"index": "/nowhere"}, "--index /nowhere: no index.json there"),
        ({"candidates": 61}, "--candidates 61: the index has only 60 rows"),
        ({"chooser": "verification"}, "--chooser verification"),
        ({"parts": "image"}, "--parts image"),
        ({"calibration": "/nowhere"}, "--calibration /nowhere/calibration.json: no such file"),
        ({"ranker_model": "/nowhere"}, "--ranker-model /nowhere: recipe lite has no GeoRanker"),
        ({"min_confidence": "25km:0.5"}, "min_confidence 25km:0.5: is for archives"),
        ({"skip_ranking_within_km": 3}, "--skip-ranking-within-km 3.0"),
        (
            {"recipe": "georanker-retrieved", "encoder": "lite", "ranker_model": "/nowhere"},
            "--ranker-adapter: a recipe with",
        ),
    ],
)
def test_options_that_do_not_go_together(toy_index, changed, message):
    with pytest.raises(UsageError, match=message):
        check(ModelOptions(**{"recipe": "lite", "index": str(toy_index)} | changed).read(S3), S3)


def test_a_calibration_serves_the_estimates_it_was_made_for(toy_index, toy, random, tmp_path):
    options = ModelOptions(recipe="lite", index=str(toy_index), candidates=8, calibration=str(tmp_path))
    uncalibrated = Retrieval(options.model_copy(update={"calibration": None}))
    settings = find_method(options).settings(uncalibrated.facts["weights"])
    scores = np.sort(random.normal(size=(400, 8)))[:, ::-1]
    table = features(scores, scores, *random.uniform(-60, 60, (2, 400, 8)), 10.0)
    calibration = fit(table, np.exp(5 - 3 * scores[:, 0]), settings)
    (tmp_path / "calibration.json").write_bytes(calibration.to_json())
    photo = max((toy / "archive").rglob("*.jpg"), key=lambda path: path.stat().st_size).read_bytes()

    with Decoder(DecodeOptions(uncalibrated.view)) as decoder:
        loaded = [load_one(photo, decoder)]
    [before] = uncalibrated.locate(loaded)[0].to_pylist()
    calibrated = Retrieval(options)
    [after] = calibrated.locate(loaded)[0].to_pylist()
    assert before["confidence_25km"] is None
    assert after["confidence_25km"] == after["confidence"]
    assert (before["lat"], before["lon"]) == (after["lat"], after["lon"])
    with pytest.raises(UsageError, match=r"made for other estimates \(candidates was 8, is now 9"):
        Retrieval(options.model_copy(update={"candidates": 9}))
