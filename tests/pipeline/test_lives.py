import random

import pytest

from tests.lives import MOODS, POINTS, Fate, live, store


@pytest.mark.parametrize("point", POINTS)
def test_rows_out_are_photos_in_wherever_a_run_is_killed(tmp_path, point):
    """On a disk, at its first and at a later occasion."""
    for occasion in (1, 3):
        fate = Fate(point, occasion)
        assert live(store("disk", tmp_path / str(occasion)), fate, seed=occasion) >= (3 if fate.killed else 2)
        assert fate.killed or occasion > 1


@pytest.mark.parametrize("mood", [name for name in MOODS if name != "well"])
def test_and_whatever_the_store_is_in(tmp_path, s3, mood):
    s3.create_bucket(Bucket="lives")
    point = random.Random(mood).choice(list(POINTS))
    fate = Fate(point, 1, mood, failures=7)
    assert live(store("s3", tmp_path), fate, seed=1) == 3
    assert fate.failures == 0
