import numpy as np
import pytest
import torch
from geoclip import LocationEncoder as Peer

from geoloc.encoders.location import LocationEncoder


@pytest.fixture(scope="module")
def encoder():
    return LocationEncoder.geoclip()


def test_equal_to_the_packages_own(encoder, random):
    lat, lon = random.uniform(-90, 90, 500), random.uniform(-180, 180, 500)
    points = torch.from_numpy(np.stack([lat, lon], axis=1)).float()
    with torch.inference_mode():
        assert torch.allclose(encoder(points), Peer().eval()(points), atol=5e-5)


def test_encode_gives_unit_vectors(encoder):
    vectors = encoder.encode(np.array([90.0, -90.0, 0.0]), np.array([0.0, 0.0, 180.0]), batch=2)
    assert vectors.shape == (3, 512)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert encoder.encode(np.zeros(0), np.zeros(0)).shape == (0, 512)


def test_not_continuous_across_the_antimeridian(encoder):
    """As published; a cosine of 0.2719 between two names of one point."""
    east, west = encoder.encode(np.zeros(2), np.array([180.0, -180.0]))
    assert east @ west == pytest.approx(0.2719, abs=1e-3)


def test_frequencies_are_frozen(encoder):
    assert "capsules.0.frequencies" not in dict(encoder.named_parameters())
