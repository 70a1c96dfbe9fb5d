"""Densities against integrals over the sphere."""

import numpy as np
import pytest

from geoloc.context.kernels import ANYWHERE, SCALES_KM, Table, chords2, kernel_densities, mass_within
from geoloc.geo.distance import EARTH_RADIUS_KM, haversine_km, unit_vectors


def test_every_kernel_is_a_density_on_the_sphere():
    """Rings of the sphere by angle, each of area 2 pi R² sin(angle) d(angle)."""
    angle = np.geomspace(1e-9, np.pi, 400_001)
    chord2 = (2 * EARTH_RADIUS_KM * np.sin(angle / 2)) ** 2
    rings = 2 * np.pi * EARTH_RADIUS_KM**2 * np.sin(angle)
    for k, density in enumerate(kernel_densities(chord2).T):
        assert np.trapezoid(density * rings, angle) == pytest.approx(1, rel=1e-4), k
        near = angle <= 2 * np.arcsin(25 / 2 / EARTH_RADIUS_KM)
        within = np.trapezoid((density * rings)[near], angle[near])
        assert within == pytest.approx(mass_within(np.array(25.0))[k], rel=1e-3, abs=1e-9)


def test_half_of_a_kernel_is_within_its_scale():
    assert np.diag(mass_within(np.array(SCALES_KM[:5]))) == pytest.approx(0.5, abs=1e-3)
    assert mass_within(np.array(2 * EARTH_RADIUS_KM)) == pytest.approx(1)


def test_reach_and_blur_bound_the_scales():
    far = np.array(500.0**2)
    assert kernel_densities(far, reach_km=2.0)[:-1].max() < 1e-3 * kernel_densities(far)[:-1].max()
    assert kernel_densities(np.array(0.0), blur_km=2.0)[0] == pytest.approx(1 / (np.pi * (0.05**2 + 4)), rel=1e-6)
    assert kernel_densities(far)[-1] == ANYWHERE == pytest.approx(1 / 5.1007e8, rel=1e-3)


def test_chords_keep_metres_in_single_precision():
    lat, lon = np.array([48.8584, 48.8585, -33.0]), np.array([2.2945, 2.2945, 151.0])
    points = unit_vectors(lat, lon).astype(np.float32)
    squared = chords2(points[None], points[None])[0]
    arcs = haversine_km(lat[:, None], lon[:, None], lat, lon)
    chords = 2 * EARTH_RADIUS_KM * np.sin(arcs / 2 / EARTH_RADIUS_KM)
    np.testing.assert_allclose(np.sqrt(squared), chords, atol=1e-3, rtol=1e-5)


def test_a_table_is_its_function_to_a_few_percent():
    table = Table.of(lambda squared: kernel_densities(squared)[..., 2])
    squared = np.geomspace(1e-6, 1.6e8, 5000).astype(np.float32)
    np.testing.assert_allclose(table.values[Table.steps(squared)], kernel_densities(squared)[..., 2], rtol=0.07)
    assert table.values[Table.steps(np.zeros(1, np.float32))] == table.values[0]
