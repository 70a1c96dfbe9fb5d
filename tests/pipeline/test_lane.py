from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.pipeline.lane import Lane
from geoloc.pipeline.plan import Pool
from geoloc.pipeline.run import Unit
from geoloc.recipes.stage import Stage


def pool(actors: int) -> Pool:
    return Pool(Stage("judge", print), tuple(range(actors)), 1, 1, 1, 16)


@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=3), st.integers(0, 40))
def test_every_stretch_and_every_actor_is_one_lanes(count, actors, stretches):
    units = [Unit(0, 8 * n, 8 * n + 8, bytes([0b11110000])) for n in range(stretches)]
    pools = tuple(map(pool, actors))
    whole = Lane(units, pools, None, None, None, None, None, 64, None, SimpleNamespace(), SimpleNamespace())
    lanes = whole.split(count)
    assert len(lanes) == max(1, min(count, stretches, *actors))
    assert sorted((unit for lane in lanes for unit in lane.units), key=lambda unit: unit.start) == units
    assert sum(lane.photos for lane in lanes) == whole.photos == 4 * stretches
    for number, one in enumerate(pools):
        shares = [lane.pools[number].bundles for lane in lanes]
        assert sorted(bundle for share in shares for bundle in share) == list(one.bundles)
        assert min(map(len, shares)) >= 1
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("gpus", "photos", "lanes"), [(0, 10**8, 1), (8, 10**5, 1), (8, 10**7, 2), (64, 10**7, 10), (64, 10**8, 16)]
)
def test_a_large_archive_on_many_gpus_has_several(gpus, photos, lanes, monkeypatch):
    from geoloc.pipeline import stages

    monkeypatch.setattr(stages.ray, "put", lambda value: value)
    plan = SimpleNamespace(pools=(pool(max(1, gpus)),), bundles=range(max(1, gpus)), gpus=gpus)
    placement = SimpleNamespace(plan=plan, options=SimpleNamespace(lanes=None))
    stream = stages.Stream(SimpleNamespace(parts=None, manifest=None, tried_again=None), None, placement)
    units = [Unit(0, n, n + photos // 100, bytes(-(-photos // 800))) for n in range(100)]
    assert len(stream._lanes(units, 64, None, None, None)) == lanes
