import numpy as np
import pytest

from geoloc.context.kernels import SCALES_KM
from geoloc.context.transition import DECADES, UNCONNECTED, Transition, learned, rows_of

KERNELS = len(SCALES_KM) + 1


def test_it_learns_what_made_the_moves():
    """Half of the photos of a minute are on the spot and the rest in town; of a month, half in town and half a country away."""
    random = np.random.default_rng(0)
    logs = np.repeat([0.0, 4.6], 4000)
    scale = np.where(random.random(8000) < 0.5, np.where(logs == 0, 0.05, 3.0), np.where(logs == 0, 3.0, 400.0))
    share = random.random(8000)
    transition = learned(logs, scale**2 * share / (1 - share))  # the inverse of c² / (c² + r²)
    minute, month = transition.weights(np.array([0.0, 4.6]))
    assert minute[[0, 2]] == pytest.approx(0.5, abs=0.05)
    assert month[[2, 5]] == pytest.approx(0.5, abs=0.05)
    assert transition.moved(1.0).weights(3.6) == pytest.approx(month)


def test_nobody_is_faster_than_an_airliner():
    everywhere = Transition((0.0,) * KERNELS, (0.0,) * KERNELS)
    timed = Transition((0.0,) * KERNELS, (0.0,) * KERNELS, timed=True)
    thousand = np.array(1000.0**2)
    assert timed.density(thousand, np.log10(1.0)) < 1e-2 * everywhere.density(thousand, 0.0)
    assert timed.density(thousand, np.log10(600)) == pytest.approx(everywhere.density(thousand, 3.0), rel=0.3)


def test_tables_are_of_gaps_and_blurs():
    transition = Transition((0.0,) * KERNELS, (0.1,) * 4 + (0.0,) * 4, temper=0.9)
    table = transition.table((0.0, 2.0))
    assert table.values.shape[:2] == (len(DECADES) + 1, 2)
    near = table.steps(np.array([100.0], np.float32))
    row = rows_of(np.array([3.0, np.nan, 99.0]))
    assert row.tolist() == [int(np.argmin(abs(DECADES - 3))), UNCONNECTED, len(DECADES) - 1]
    assert table.values[row[0], 1, near] == pytest.approx(
        transition.density(np.array([100.0]), 3.0, 2.0) ** 0.9, rel=0.06
    )
    assert len(np.unique(table.values[UNCONNECTED])) == 1
