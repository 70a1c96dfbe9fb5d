import numpy as np
import pyarrow as pa
import pytest

from geoloc.context.collection import Collection
from geoloc.context.hiding import compare
from geoloc.context.units import units
from geoloc.errors import UsageError


def album(minutes, timed=True) -> Collection:
    n = len(minutes)
    known = np.stack([np.full(n, 48.0), np.linspace(2, 2.01, n)], axis=1)
    estimates = np.stack([np.full(n, -30.0), np.linspace(100, 140, n)], axis=1)[:, None]
    return Collection(np.zeros(n, int), np.array(minutes, float), timed, known, estimates, np.ones((n, 1)))


def test_photos_are_hidden_with_those_round_them():
    one = album([0, 2, 30, 1500, 1501, 60_000])
    assert len(set(units(one, "photo"))) == 6
    assert [len(set(units(one, by))) for by in ("burst", "day", "trip", "album")] == [4, 3, 2, 1]
    assert units(one, "burst")[0] == units(one, "burst")[1]
    with pytest.raises(UsageError, match="--hide-by day: the photos have no times"):
        units(album([1, 2], timed=False), "day")


def test_alone_and_together_are_judged_on_hidden_places_alone():
    one = album(np.arange(40) * 3.0)
    runs, truth = compare(one, pa.array([f"p{i}" for i in range(40)]), 0.5, "photo", 3)
    assert 30 < len(truth) < 90
    assert len(set(truth.ids["uri"].to_pylist())) == len(truth)
    assert np.abs(runs["together"].lat - truth.lat).max() < 0.01
    assert (runs["alone"].lat == -30).all()
    assert (runs["together"].extra["radius_km"] > 0).all()


@pytest.mark.parametrize(
    ("share", "repeats", "message"), [(0, 1, "--hide 0: must be"), (1.5, 1, "--hide 1.5"), (0.5, 0, "--repeats 0")]
)
def test_what_cannot_be_hidden(share, repeats, message):
    with pytest.raises(UsageError, match=message):
        compare(album([0, 1]), pa.array(["a", "b"]), share, "photo", repeats)
