import numpy as np
import pytest

from geoloc.encoders.config import geoclip, lite
from geoloc.encoders.location import LocationEncoder
from geoloc.errors import UsageError
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.choosers import Density, Top1, Verification
from geoloc.storage import S3Options


def candidates(lat, lon, similarity) -> Candidates:
    lat, lon, similarity = (np.atleast_2d(np.array(a, np.float64)) for a in (lat, lon, similarity))
    return Candidates(np.arange(lat.size).reshape(lat.shape), similarity, lat, lon)


def test_top1_is_the_most_similar():
    found = candidates([0, 10, 20], [0, 0, 0], [0.3, 0.9, 0.5])
    assert Top1().load(lite())(np.zeros((1, 4)), found).argmax(axis=1).tolist() == [1]


def test_density_prefers_where_most_are():
    """Three candidates near each other outweigh a slightly more similar one far away."""
    found = candidates([48.8, 48.9, 48.7, -33.9], [2.3, 2.4, 2.2, 151.2], [0.80, 0.79, 0.78, 0.81])
    assert Density().load(lite())(np.zeros((1, 4)), found).argmax() in (0, 1, 2)
    assert Top1().load(lite())(np.zeros((1, 4)), found).argmax() == 3


def test_density_by_hand():
    """Two candidates one sigma apart, equal weights: density = log(1/2 + 1/2 e^(-1/2)) up to a constant."""
    found = candidates([0, 1], [0, 0], [0.5, 0.5])
    scores = Density(111.1949).load(lite())(np.zeros((1, 4)), found)[0]
    assert scores[0] == pytest.approx(scores[1])
    far = candidates([0, 80], [0, 0], [0.5, 0.5])
    alone = Density(111.1949).load(lite())(np.zeros((1, 4)), far)[0]
    assert scores[0] - alone[0] == pytest.approx(np.log(1 + np.exp(-0.5)), abs=1e-3)


def test_density_crosses_the_antimeridian():
    found = candidates([0, 0, 0], [179.9, -179.9, 100], [0.5, 0.5, 0.5])
    assert Density().load(lite())(np.zeros((1, 4)), found)[0].argmax() in (0, 1)


def test_verification_is_the_cosine_of_image_and_place():
    encoder = LocationEncoder.geoclip()
    lat, lon = np.array([48.85, 35.68, 48.85]), np.array([2.35, 139.7, 2.35])
    photo = encoder.encode(lat[1:2], lon[1:2])
    scores = Verification().load(geoclip())(photo, candidates(lat, lon, [0.9, 0.1, 0.2]))[0]
    assert scores.argmax() == 1
    assert scores[1] == pytest.approx(1, abs=1e-5)
    assert scores[0] == scores[2] == pytest.approx(float(encoder.encode(lat[:1], lon[:1])[0] @ photo[0]), abs=1e-5)


@pytest.mark.parametrize("chooser", [Top1(), Density(), Verification()])
def test_no_candidate_is_never_chosen(chooser, random):
    row = np.array([[4, -1, 2], [-1, -1, 7]])
    found = Candidates(
        row, np.full((2, 3), 0.5, np.float32), random.uniform(-80, 80, (2, 3)), random.uniform(-180, 180, (2, 3))
    )
    scores = chooser.load(geoclip())(random.normal(size=(2, 512)).astype(np.float32), found)
    assert np.array_equal(np.isneginf(scores), row < 0)


def test_a_chooser_that_the_encoder_cannot_serve_is_refused():
    Verification().check(geoclip(), 20, S3Options())
    with pytest.raises(UsageError, match="--chooser verification: encoder lite has no location space"):
        Verification().check(lite(), 20, S3Options())
