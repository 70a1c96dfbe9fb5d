"""Photos that other cameras, and logs, locate."""

import numpy as np
import pyarrow as pa
import pytest

from geoloc.context.collection import Collection
from geoloc.context.company import Company, CompanyOptions, read_clock_offsets
from geoloc.context.locating import locate_collection
from geoloc.context.reasons import reasons
from geoloc.errors import UsageError
from geoloc.geo.distance import haversine_km
from geoloc.toy.trips import Device, household, somewhere
from geoloc.tracks.track import Track

START = 27_000_000.0
PARIS, NEAR = np.array([48.86, 2.35]), np.array([48.90, 2.40])


def of(chain, position, known, company, estimates=None) -> Collection:
    known = np.array(known, float)
    estimates = np.full(known.shape, np.nan) if estimates is None else np.array(estimates, float)
    return Collection(
        np.array(chain),
        np.array(position, float),
        True,
        known,
        estimates[:, None],
        (~np.isnan(estimates[:, :1])).astype(float),
        company,
    )


def company(n: int, folder=None, utc=True, told=False, tracks=()) -> Company:
    folder = np.zeros(n, int) if folder is None else np.array(folder)
    return Company(folder, np.full(n, utc), np.full(n, told), tuple(tracks))


def walk() -> Track:
    """From Paris to a suburb, in an hour, a point every five minutes; and back there two days later."""
    share = np.linspace(0, 1, 13)[:, None]
    places = np.concatenate([PARIS + share * (NEAR - PARIS), PARIS[None]])
    return Track("walk.gpx", START + np.append(np.arange(13) * 5.0, 2880.0), places)


def test_a_photo_between_points_of_a_track_lies_between_them():
    n = 8
    at = START + np.array([2.5, 12.5, 22.5, 32.5, 42.5, 52.5, 57.5, 59.0])
    found = locate_collection(of(np.zeros(n, int), at, np.full((n, 2), np.nan), company(n, told=True, tracks=[walk()])))
    true = PARIS + ((at - START) / 60)[:, None] * (NEAR - PARIS)
    assert haversine_km(found.lat, found.lon, *true.T).max() < 0.2
    assert (found.source == -1).all()
    assert (found.track == 0).all()


def test_it_is_told_which_track_and_how_long_before():
    n = 6
    collection = of(
        np.zeros(n, int),
        START + np.array([10, 20, 30, 40, 50, 90.0]),
        np.full((n, 2), np.nan),
        company(n, told=True, tracks=[walk()]),
    )
    texts = reasons(collection, locate_collection(collection), pa.chunked_array([[f"{i}.jpg" for i in range(n)]]))
    assert texts[0] == "track walk.gpx, at that moment"
    assert texts[5] == "track walk.gpx, 30 minutes before"


def test_a_track_of_somebody_else_moves_nobody():
    """Whose photos have their own positions, elsewhere, at the same times."""
    at = np.sort(START + np.random.default_rng(0).uniform(0, 60, 30))
    sydney = np.array([-33.87, 151.21]) + np.random.default_rng(1).normal(0, 0.01, (30, 2))
    known = np.where(np.arange(30)[:, None] % 2, sydney, np.nan)
    found = locate_collection(of(np.zeros(30, int), at, known, company(30, tracks=[walk()])))
    assert haversine_km(found.lat, found.lon, *sydney.T).max() < 20
    assert (found.track == -1).all()


def _households(gps: float, seeds: range):
    for seed in seeds:
        random = np.random.default_rng(seed)
        one = household(random, somewhere(random), trips=3)
        shots = one.shots
        known = ~np.isnan(shots.gps[:, :1]) & (random.random((len(shots), 1)) < gps)
        right = random.random((len(shots), 1)) < 0.5
        off = np.where(right, random.normal(0, 0.02, (len(shots), 2)), random.normal(0, 20, (len(shots), 2)))
        estimates = np.clip(shots.place + off, [-89, -180], [89, 180])
        yield one, known, estimates


def test_cameras_of_a_household_help_each_other_and_who_stayed_at_home_stays():
    gained, moved, partners = [], 0, 0
    for one, known, estimates in _households(0.3, range(4)):
        shots = one.shots
        met = Company(np.zeros(len(shots), int), shots.device == Device.PHONE.value, np.zeros(len(shots), bool))
        given = np.where(known, shots.gps, np.nan), met, np.where(known, np.nan, estimates)
        joint, own = (locate_collection(of(shots.device, shots.clock, given[0], who, given[2])) for who in (met, None))
        km = [haversine_km(it.lat, it.lon, *shots.place.T) for it in (own, joint)]
        camera = shots.device == Device.CAMERA.value
        gained.append((np.mean(km[0][camera] < 1), np.mean(km[1][camera] < 1)))
        partner = shots.device == Device.PARTNER.value
        moved += int((partner & (km[1] > 25) & (km[0] <= 25)).sum())
        partners += int(partner.sum())
        told = [m.spell for m in joint.meetings if m.chain == Device.CAMERA.value and m.spell.told and m.from_utc]
        assert all(abs(spell.offset - one.clocks.camera) <= max(1, spell.give_or_take) for spell in told)
    before, after = np.mean(gained, axis=0)
    assert after > before + 0.2
    assert moved <= 0.01 * partners


def test_cameras_that_share_no_folder_are_not_compared():
    one, known, estimates = next(_households(0.3, range(1)))
    shots = one.shots
    met = Company(shots.device, shots.device == Device.PHONE.value, np.zeros(len(shots), bool))
    found = locate_collection(
        of(shots.device, shots.clock, np.where(known, shots.gps, np.nan), met, np.where(known, np.nan, estimates))
    )
    assert found.meetings == []


def test_told_clocks():
    rows = pa.table({"camera": ["Canon", "Canon", "Nikon", None]})
    position, told = CompanyOptions(clock_offsets={"Canon": 60.0}).by_told_clock(rows, np.zeros(4), np.full(4, 100.0))
    assert position.tolist() == [40.0, 40.0, 0.0, 0.0]
    assert told.tolist() == [True, True, False, False]


@pytest.mark.parametrize("text", ["Canon", "=+01:00", "Canon=1h", "Canon=01:00", ""])
def test_clock_offsets_that_are_none(text):
    with pytest.raises(UsageError, match="--clock-offset"):
        read_clock_offsets((text,))


def test_photos_without_times_and_those_at_one_moment():
    for at in (np.full(8, np.nan), np.full(8, START), np.append(np.full(7, np.nan), START)):
        found = locate_collection(
            of(
                np.zeros(8, int),
                at,
                np.full((8, 2), np.nan),
                company(8, told=True, tracks=[walk()]),
                np.tile(PARIS, (8, 1)),
            )
        )
        assert haversine_km(found.lat, found.lon, *PARIS).max() < 10


@pytest.mark.parametrize("places", [[(10.0, 179.9), (10.0, -179.9)], [(89.9, -100.0), (89.9, 80.0)]])
def test_a_track_over_the_antimeridian_and_one_near_the_pole(places):
    track = Track("far.gpx", START + np.array([0.0, 8.0]), np.array(places))
    found = locate_collection(
        of(np.zeros(6, int), START + np.arange(1.0, 7), np.full((6, 2), np.nan), company(6, told=True, tracks=[track]))
    )
    assert haversine_km(found.lat, found.lon, *places[0]).max() < 25
