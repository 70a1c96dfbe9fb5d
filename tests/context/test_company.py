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


def _home_and_away(told: bool, log: bool) -> tuple[Collection, np.ndarray]:
    """A camera's week in Rome, its estimates all right, and the positions of who stayed in Berlin, by a telephone or a log."""
    random = np.random.default_rng(0)
    rome, berlin = np.array([41.9, 12.5]), np.array([52.52, 13.4])
    trip = np.sort(START + np.concatenate([1440 * day + random.uniform(0, 600, 10) for day in range(7)]))
    estimates = rome + random.normal(0, 0.02, (70, 2))
    home = START + np.arange(0, 7 * 1440, 120.0 if not log else 10.0)
    places = berlin + random.normal(0, 1e-4, (len(home), 2))
    if log:
        met = company(70, told=told, tracks=[Track("home.json", home, places)])
        return of(np.zeros(70, int), trip, np.full((70, 2), np.nan), met, estimates), rome
    n = len(home)
    is_camera = np.arange(70 + n) < 70
    met = Company(np.zeros(70 + n, int), np.ones(70 + n, bool), is_camera & told)
    nowhere = np.full((n, 2), np.nan)
    known = np.concatenate([np.full((70, 2), np.nan), places])
    given = of(~is_camera, np.concatenate([trip, home]), known, met, np.concatenate([estimates, nowhere]))
    return given, rome


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("log", [False, True])
def test_who_stayed_at_home_was_not_with_a_camera_whose_clock_is_told(told, log):
    collection, rome = _home_and_away(told, log)
    found = locate_collection(collection)
    assert haversine_km(found.lat[:70], found.lon[:70], *rome).max() < 50


def test_a_camera_that_was_out_before_and_after_the_other_and_not_between():
    """They met by the first's photos, none of which is from within the other's."""
    before_and_after, between = np.append(np.arange(0, 20, 2.0), np.arange(30, 50, 2.0)), np.linspace(20, 28, 5)
    later = np.concatenate([1440.0 * day + np.arange(0, 200, 20.0) for day in range(1, 6)])
    minutes = np.concatenate([before_and_after, later, between])
    on_foot = np.stack([48 + 0.01 * minutes, 2 + 0.015 * minutes], axis=1)
    abroad = np.stack([20 + 5 * (minutes // 1440), 50 + 4 * (minutes // 1440)], axis=1)
    known = np.where((minutes < 1440)[:, None], on_foot, abroad)
    chain = np.repeat([0, 1], [20 + 50, 5])
    found = locate_collection(of(chain, START + minutes, known, company(75)))
    assert found.meetings
    assert found.lat.tolist() == known[:, 0].tolist()


def test_a_log_that_lay_in_the_hotel_does_not_know_where_its_owner_was():
    """Half an hour of it in the morning, and in the evening, of a day whose photos show another city."""
    random, day = np.random.default_rng(0), 1440.0
    with_it = [START + day * number + np.arange(0, 600, 5.0) for number in range(4)]
    minutes = np.concatenate(
        [*with_it, START + 4 * day + np.arange(0, 30, 5.0), START + 4 * day + 570 + np.arange(0, 30, 5.0)]
    )
    places = PARIS + np.sin(minutes / 200)[:, None] * (NEAR - PARIS) * 20 * (minutes < START + 4 * day)[:, None]
    at = np.concatenate([np.sort(random.choice(one, 20, replace=False)) for one in with_it])
    there = places[np.searchsorted(minutes, at)]
    away = START + 4 * day + np.linspace(120, 480, 8)
    lyon = np.tile([45.76, 4.84], (8, 1))
    estimates = np.concatenate([there, lyon]) + random.normal(0, 0.02, (88, 2))
    met = company(88, told=True, tracks=[Track("days.gpx", minutes, places)])
    found = locate_collection(
        of(np.zeros(88, int), np.concatenate([at, away]), np.full((88, 2), np.nan), met, estimates)
    )
    assert haversine_km(found.lat[80:], found.lon[80:], *lyon.T).max() < 25
    assert np.median(haversine_km(found.lat[:80], found.lon[:80], *there.T)) < 0.5


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


def test_a_camera_is_told_of_once():
    with pytest.raises(UsageError, match="a second time"):
        read_clock_offsets(("X=+01:00", "X=+02:00"))


@pytest.mark.parametrize("text", ["Canon", "=+01:00", "Canon=1h", "Canon=01:00", "Canon=+01:99", ""])
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
