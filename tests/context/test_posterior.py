"""Forward-backward against a sum over all paths."""

import itertools

import numpy as np
import pytest

from geoloc.context.kernels import Table, chords2
from geoloc.context.posterior import posterior
from geoloc.context.states import States
from geoloc.context.transition import UNCONNECTED, Transition
from geoloc.geo.distance import unit_vectors

PHOTOS, STATES = 5, 3


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_sum_over_all_paths(seed):
    random = np.random.default_rng(seed)
    points = unit_vectors(random.uniform(40, 41, (PHOTOS, STATES)), random.uniform(0, 3, (PHOTOS, STATES)))
    present = random.random((PHOTOS, STATES)) < 0.8
    present[:, 0] = True
    kind = random.integers(0, 2, (PHOTOS, STATES)).astype(np.int8)
    states = States(points.astype(np.float32), present, kind, np.zeros((PHOTOS, STATES), int))
    emission = (random.gamma(0.3, size=(PHOTOS, STATES)) * present + 1e-9 * present).astype(np.float32)
    gaps = random.integers(0, 100, PHOTOS)
    gaps[[0, 3]] = UNCONNECTED  # two chains
    table = Transition((1.0,) * 4 + (0.0,) * 4, (-0.1,) * 4 + (0.1,) * 4).table((0.1, 1.0, 2.0))
    probability, likelihood = posterior(states, emission, gaps, table)

    def step(i: int, a: int, b: int) -> float:
        squared = chords2(states.points[i - 1, [a]], states.points[i, [b]])[0]
        return float(table.values[gaps[i], kind[i - 1, a] + kind[i, b], Table.steps(squared)][0])

    weights = {}
    for path in itertools.product(range(STATES), repeat=PHOTOS):
        weight = float(np.prod([emission[i, s] for i, s in enumerate(path)], dtype=np.float64))
        weights[path] = weight * np.prod([step(i, path[i - 1], path[i]) for i in range(1, PHOTOS)])
    total = sum(weights.values())
    expected = np.zeros((PHOTOS, STATES))
    for path, weight in weights.items():
        expected[np.arange(PHOTOS), path] += weight / total
    np.testing.assert_allclose(probability, expected, rtol=1e-4, atol=1e-7)
    assert likelihood == pytest.approx(np.log(total), abs=1e-3)


def test_long_chains_neither_vanish_nor_overflow():
    points = unit_vectors(np.tile([10.0, -60.0], (3000, 1)), np.tile([10.0, 170.0], (3000, 1))).astype(np.float32)
    states = States(points, np.ones((3000, 2), bool), np.ones((3000, 2), np.int8), np.zeros((3000, 2), int))
    emission = np.tile(np.array([[1e-9, 1e-12]], np.float32), (3000, 1))
    table = Transition((1.0,) * 8, (0.0,) * 8).table((0.1, 1.0, 2.0))
    probability, likelihood = posterior(states, emission, np.r_[UNCONNECTED, np.full(2999, 30)], table)
    assert np.isfinite(likelihood)
    assert probability[:, 0] == pytest.approx(1)
