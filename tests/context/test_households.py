"""Who is worked on together, and what tells that nothing of them has changed."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from geoloc.context.archive import compact
from geoloc.context.households import Households, chain_of, fingerprints, members
from geoloc.schema import RESULT

NOON = datetime(2019, 7, 4, 12)


def photos(folder: str, camera: str, count: int, serial: str | None = None, **more) -> list[dict]:
    return [
        {"uri": f"{folder}{i}.jpg", "status": "located", "taken_at": NOON + timedelta(minutes=i), "camera": camera}
        | {"camera_serial": serial, "lat": 1.0, "lon": 2.0}
        | more
        for i in range(count)
    ]


def table(*lists: list[dict]) -> pa.Table:
    rows = [row for one in lists for row in one]
    return compact(pa.Table.from_pylist([{"id": number} | row for number, row in enumerate(rows)], RESULT))


ROWS = (
    photos("/ada/a/", "X", 5, "1"),
    photos("/ada/b/", "Y", 5),
    photos("/bob/a/", "Z", 5, "2"),
    photos("/bob/b/", "X", 3, "3"),
    photos("/eve/a/", "X", 4, "4"),
)


def households_of(rows: pa.Table, at_once: int) -> tuple[np.ndarray, np.ndarray]:
    found = Households.of(members(rows), at_once)
    return found.at(chain_of(rows))


def test_cameras_that_share_folders_are_a_household():
    household, bucket = households_of(table(*ROWS), 100)
    assert len(set(household[:10])) == len(set(household[10:18])) == len(set(household[18:])) == 1
    assert len(set(household.tolist())) == 3
    assert set(bucket.tolist()) == {0}


def test_a_camera_in_two_folders_joins_them():
    rows = table(*ROWS, photos("/eve/a/", "Z", 1, "2"))
    household, _ = households_of(rows, 100)
    assert household[10] == household[18] != household[0]


def test_buckets_hold_whole_households_and_about_as_many_photos():
    household, bucket = households_of(table(*ROWS), 10)
    pairs = set(zip(household.tolist(), bucket.tolist(), strict=True))
    assert len(pairs) == 3
    assert len(set(bucket.tolist())) >= 2
    assert sorted(set(bucket.tolist())) == list(range(len(set(bucket.tolist()))))


def test_a_crowd_is_no_household():
    household, _ = households_of(table(*ROWS), 6)
    assert len(set(household[:10].tolist())) == 2  # ada's two cameras


def test_it_does_not_matter_how_rows_lie_in_files():
    rows = table(*ROWS)
    parts = pa.concat_tables([members(rows.slice(0, 7)), members(rows.slice(7))])
    one, other = Households.of(members(rows), 100), Households.of(parts, 100)
    assert one.chain.tolist() == other.chain.tolist()
    assert one.household.tolist() == other.household.tolist()


def with_households(rows: pa.Table) -> pa.Table:
    return rows.append_column("household", pa.array(households_of(rows, 100)[0], pa.uint64()))


def prints(rows: pa.Table, salt: str = "") -> dict[int, int]:
    found = fingerprints(with_households(rows), salt)
    return dict(zip(found["household"].to_pylist(), found["fingerprint"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"taken_at": NOON + timedelta(days=1)},
        {"candidates": [{"lat": 3.0, "lon": 4.0, "score": 0.5}]},
        {"status": "kept"},
        {"camera": "W"},
        {"taken_utc_offset": 60},
        {"status": "failed"},
    ],
)
def test_a_change_tells_on_its_household_alone(change):
    before = prints(table(*ROWS))
    after = prints(table([ROWS[0][0] | change, *ROWS[0][1:]], *ROWS[1:]))
    if change == {"status": "failed"}:  # it is not looked at any more
        assert len(after) == 3
    changed = set(before.items()) ^ set(after.items())
    assert 1 <= len(changed) <= 2
    assert len(set(before.items()) & set(after.items())) == 2


@pytest.mark.parametrize("change", [{"status": "uncertain", "lat": None, "lon": None}, {"because": "its own estimate"}])
def test_what_neighbours_change_tells_on_nobody(change):
    assert prints(table(*ROWS)) == prints(table([ROWS[0][0] | change, *ROWS[0][1:]], *ROWS[1:]))


def test_other_settings_tell_on_all():
    rows = table(*ROWS)
    assert not set(prints(rows).items()) & set(prints(rows, "others").items())


def test_no_photos():
    nothing = table()
    assert Households.of(members(nothing), 10).buckets == 1
    assert prints(nothing) == {}
