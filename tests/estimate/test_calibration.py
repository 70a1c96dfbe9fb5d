import json

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from geoloc.errors import UsageError
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import features, fit, read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.evaluation.reliability import coverage, reliability
from geoloc.geo.distance import THRESHOLDS_KM, geodesic_km
from geoloc.storage import S3Options

SETTINGS = {"encoder": "e", "index": "i", "chooser": "top1", "candidates": 12}
SCALE = 20.0


def world(random, n, k=12):
    """Photos whose candidates agree the more, the likelier they are right: scores, similarity, lat, lon, true lat, lon."""
    true_lat, true_lon = random.uniform(-60, 60, n), random.uniform(-180, 180, n)
    easy = random.beta(1, 1, n)[:, None]
    near = random.uniform(size=(n, k)) < easy
    lat = np.where(near, true_lat[:, None] + random.normal(0, 0.1, (n, k)), random.uniform(-60, 60, (n, k)))
    lon = np.where(near, true_lon[:, None] + random.normal(0, 0.1, (n, k)), random.uniform(-180, 180, (n, k)))
    scores = np.sort(random.uniform(0.3, 0.9, (n, k)), axis=1)[:, ::-1].astype(np.float32)
    return scores, scores, lat, lon, true_lat, true_lon


def errors(photos):
    _, _, lat, lon, true_lat, true_lon = photos
    return geodesic_km(lat[:, 0], lon[:, 0], true_lat, true_lon)


def fitted(photos, **options):
    return fit(features(*photos[:4], SCALE), errors(photos), SETTINGS, **options)


def test_probabilities_and_radii_hold_on_photos_never_seen(random):
    calibration, held_out = fitted(world(random, 2_000)), world(random, 8_000)
    below, radius = calibration.predict(features(*held_out[:4], SCALE))
    km = errors(held_out)
    for number, threshold in enumerate(THRESHOLDS_KM):
        assert reliability(below[:, number], km < threshold).error < 0.03
    assert 0.88 <= coverage(radius, km) <= 0.92
    assert reliability(Confidence(SCALE).columns(*held_out[:4])["confidence"], km < 25).error > 0.03  # what it is for


def test_the_coverage_is_asked_for(random):
    calibration, held_out = fitted(world(random, 2_000), coverage=0.6), world(random, 4_000)
    radius = calibration.predict(features(*held_out[:4], SCALE))[1]
    assert coverage(radius, errors(held_out)) == pytest.approx(0.6, abs=0.03)


def test_confidences_never_fall_with_the_threshold(random):
    below, radius = fitted(world(random, 300)).predict(random.normal(0, 100, (500, 14)))
    assert (np.diff(below, axis=1) >= 0).all()
    assert ((below >= 0) & (below <= 1)).all()
    assert ((radius > 0) & (radius <= 20_015)).all()


def test_photos_of_one_author_are_in_one_fold(random):
    """100 copies of each photo: known by heart, unless whole authors are left out."""
    photos = world(random, 60)
    copies = tuple(np.repeat(array, 100, axis=0) for array in photos)
    honest = fitted(copies, groups=np.repeat(np.arange(60), 100)).evidence
    fooled = fitted(copies).evidence
    assert honest["groups"] == 60
    assert honest["expected_calibration_error"]["25km"] > fooled["expected_calibration_error"]["25km"] + 0.02


@given(
    hnp.arrays(np.float32, (5, 6), elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.float64, (5, 6), elements=st.floats(-90, 90)),
    hnp.arrays(np.float64, (5, 6), elements=st.floats(-180, 180)),
    st.integers(1, 6),
)
@settings(max_examples=50, deadline=None)
def test_features_are_finite_and_do_not_depend_on_the_order(scores, lat, lon, known):
    scores[:, known:] = -np.inf
    table = features(scores, scores, lat, lon, SCALE)
    assert np.isfinite(table).all()
    distinct = [len(set(row[:known])) == known for row in scores.tolist()]
    order = np.random.default_rng(0).permutation(6)
    shuffled = features(*(array[:, order] for array in (scores, scores, lat, lon)), SCALE)
    assert np.allclose(table[distinct], shuffled[distinct])


def test_it_is_read_back(random, tmp_path):
    calibration = fitted(world(random, 300))
    (tmp_path / "calibration.json").write_bytes(calibration.to_json())
    assert read_calibration(str(tmp_path), S3Options()) == calibration
    assert read_calibration(str(tmp_path / "calibration.json"), S3Options()).fingerprint == calibration.fingerprint
    with pytest.raises(UsageError, match=r"--calibration /nowhere/calibration.json: no such file"):
        read_calibration("/nowhere", S3Options())
    (tmp_path / "calibration.json").write_text(json.dumps({"format": 1, "colour": "red"}))
    with pytest.raises(UsageError, match="is no calibration"):
        read_calibration(str(tmp_path), S3Options())
    (tmp_path / "calibration.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UsageError, match="format 99, this version reads 1"):
        read_calibration(str(tmp_path), S3Options())


def test_it_is_for_the_estimates_it_was_fitted_on(random):
    calibration = fitted(world(random, 300))
    calibration.check(dict(SETTINGS), "--calibration c")
    with pytest.raises(
        UsageError, match=r"--calibration c: .*candidates was 12, is now 20; chooser was 'top1', is now 'density'"
    ):
        calibration.check(SETTINGS | {"candidates": 20, "chooser": "density"}, "--calibration c")


def test_too_few_photos(random):
    with pytest.raises(UsageError, match="at least 100 photos of known place with an estimate, there are 99"):
        fitted(world(random, 99))


def test_abstention_keeps_the_estimate_aside(random):
    photos = world(random, 1_000)
    calibration = fitted(photos)
    everything = Confidence(SCALE, calibration).columns(*photos[:4])
    some = Confidence(SCALE, calibration, Abstention.parse("25km:0.5")).columns(*photos[:4])
    uncertain = some["status"] == "uncertain"
    assert 0.1 < uncertain.mean() < 0.9
    assert (uncertain == (everything["confidence_25km"] < 0.5)).all()
    assert np.isnan(some["lat"][uncertain]).all()
    assert (some["estimate_lat"] == everything["lat"]).all()
    assert (errors(photos)[~uncertain] < 25).mean() > (errors(photos) < 25).mean()
    assert (everything["confidence"] == everything["confidence_25km"]).all()


@pytest.mark.parametrize("text", ["25km", "25:0.5", "30km:0.5", "25km:1.5", "25km:0", "25km:x", ""])
def test_abstentions_that_mean_nothing(text):
    with pytest.raises(UsageError, match="--min-confidence"):
        Abstention.parse(text)


def test_uncalibrated_says_so():
    columns = Confidence(1.0).columns(*(np.zeros((1, 2)) for _ in range(4)))
    assert np.isnan(columns["confidence_25km"]).all()
    assert columns["confidence"] == 1
