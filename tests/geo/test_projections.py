import numpy as np
import pyproj
import pytest
import torch
from geoclip.model.location_encoder import equal_earth_projection

from geoloc.geo.projections import equal_earth, mercator


def test_equal_earth_worked_example():
    x, y = equal_earth(torch.tensor([[40.7128, -74.006]], dtype=torch.float64))[0].tolist()
    assert (x, y) == pytest.approx((-0.36276159, 0.29079120), abs=1e-7)


def test_equal_earth_is_geoclips():
    torch.manual_seed(0)
    points = (torch.rand(1000, 2) - 0.5) * torch.tensor([180.0, 360.0])
    points = torch.cat([points, torch.tensor([[90.0, 0.0], [-90.0, 180.0], [0.0, 180.0], [0.0, -180.0]])])
    assert torch.allclose(equal_earth(points), equal_earth_projection(points), atol=1e-6)
    assert equal_earth(points).isfinite().all()


def test_mercator_is_g3s():
    """methods.md 8; (y, x), and finite at the poles."""
    points = torch.tensor([[40.7128, -74.006], [85.0511287798, 180.0], [90.0, 0.0], [-90.0, 0.0]], dtype=torch.float64)
    expected = [[0.24803840, -0.41114444], [1.0, 1.0], [2.2422, 0.0], [-2.2422, 0.0]]
    assert mercator(points).numpy() == pytest.approx(np.array(expected), abs=1e-4)
    assert mercator(points[:1]).numpy() == pytest.approx(np.array(expected[:1]), abs=1e-7)


def test_mercator_is_projs(random):
    lat, lon = random.uniform(-89, 89, 200), random.uniform(-180, 180, 200)
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(lon, lat)
    ours = mercator(torch.from_numpy(np.stack([lat, lon], axis=1)))
    assert ours.numpy() == pytest.approx(np.stack([y, x], axis=1) / 20037508.3427892, abs=1e-9)
