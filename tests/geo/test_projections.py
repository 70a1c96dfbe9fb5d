import pytest
import torch
from geoclip.model.location_encoder import equal_earth_projection

from geoloc.geo.projections import equal_earth


def test_equal_earth_worked_example():
    x, y = equal_earth(torch.tensor([[40.7128, -74.006]], dtype=torch.float64))[0].tolist()
    assert (x, y) == pytest.approx((-0.36276159, 0.29079120), abs=1e-7)


def test_equal_earth_is_geoclips():
    torch.manual_seed(0)
    points = (torch.rand(1000, 2) - 0.5) * torch.tensor([180.0, 360.0])
    points = torch.cat([points, torch.tensor([[90.0, 0.0], [-90.0, 180.0], [0.0, 180.0], [0.0, -180.0]])])
    assert torch.allclose(equal_earth(points), equal_earth_projection(points), atol=1e-6)
    assert equal_earth(points).isfinite().all()
