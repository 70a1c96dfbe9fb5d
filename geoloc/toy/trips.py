"""Households that travel, and what their cameras' clocks make of it: when and where each photo was taken, as numbers.

Years of a household: weeks at home, and trips by car, train and plane. One of them has a telephone, which knows its place and
UTC, and a camera, which is on home's time wherever it is; somebody who comes along has a camera of another clock; a partner
stays at home with a third.
"""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from geoloc.geo.distance import haversine_km

_KM_A_DEGREE = 111.2
_HOUR, _DAY = 60.0, 1440.0
_START = 27_350_000.0
"""Minutes since 1970: in 2022."""
SPEEDS = {"car": 1.2, "train": 2.2, "plane": 12.0}
"""Km a minute."""
STALE = 0.03
"""Of a telephone's positions: where it last saw the sky, which was before the last way."""
AT_ONE_MOMENT = 0.4
"""Of a camera's photos: its owner, or who stands beside, takes one with the telephone too."""


class Device(Enum):
    PHONE, CAMERA, COMPANION, PARTNER = range(4)


@dataclass(frozen=True)
class Visit:
    """Of one spot."""

    start: float
    """Minutes since 1970, UTC."""
    stop: float
    lat: float
    lon: float
    away: bool
    """On a trip."""


@dataclass(frozen=True)
class Clocks:
    """Minutes that each device's clock is ahead of UTC."""

    home: float
    camera: float
    companion: float
    reset_at: float | None = None
    """When the companion's clock fell back to the year 2000; minutes since 1970, UTC."""

    def of(self, device: Device, at: np.ndarray) -> np.ndarray:
        """(n,) at moments (n,)."""
        if device is Device.PHONE:
            return np.zeros(len(at))
        if device is Device.COMPANION:
            since_2000 = 0.0 if self.reset_at is None else 15_778_080.0 - self.reset_at
            late = np.zeros(len(at), bool) if self.reset_at is None else at >= self.reset_at
            return np.where(late, since_2000, self.companion)
        return np.full(len(at), self.camera if device is Device.CAMERA else self.home)


@dataclass(frozen=True)
class Shots:
    """n photos of a household."""

    device: np.ndarray
    """(n,) values of Device."""
    at: np.ndarray
    """(n,) minutes since 1970, UTC."""
    clock: np.ndarray
    """(n,) what the device showed."""
    place: np.ndarray
    """(n, 2) degrees."""
    gps: np.ndarray
    """(n, 2) what the telephone took for its place; NaN for cameras."""

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Household:
    visits: list[Visit]
    """Of who has telephone and camera."""
    at_home: list[Visit]
    """Of the partner."""
    clocks: Clocks
    shots: Shots


def somewhere(random: np.random.Generator, count: int = 12) -> np.ndarray:
    """(count + 1, 2) degrees: a home, and cities from near to far."""
    home = np.array([random.uniform(-50, 60), random.uniform(-180, 180)])
    off = random.normal(0, 1, (count, 2)) * random.choice([150, 600, 3000], (count, 1)) / _KM_A_DEGREE
    lat, lon = np.clip(home[0] + 0.6 * off[:, 0], -60, 65), (home[1] + off[:, 1] + 180) % 360 - 180
    return np.concatenate([home[None], np.stack([lat, lon], axis=1)])


def household(random: np.random.Generator, cities: np.ndarray, trips: int = 4, shared: int | None = None) -> Household:
    """``cities`` (c, 2), degrees, of which the first is home. ``shared``: so many spots alone are seen by the camera and the
    telephone both; None for all that either is at."""
    clocks = _clocks(random, cities[0, 1])
    visits, now, returned = [], _START, []
    for _ in range(trips):
        stay, now = _at_home(random, cities[0], now)
        way, now = _trip(random, cities, now)
        visits += stay + way
        returned.append(now)
    partner, _ = _at_home(random, cities[0], _START, weeks=int((now - _START) / (7 * _DAY)))
    shots = [*_both(random, visits, clocks, shared)]
    along = [visit for visit in visits if visit.away and random.random() < 0.8]
    shots.append(_shots(random, Device.COMPANION, along, 3, clocks))
    shots.append(_shots(random, Device.PARTNER, partner, 3, clocks))
    return Household(visits, partner, clocks, _joined(shots))


def _clocks(random: np.random.Generator, lon: float) -> Clocks:
    home = 60.0 * round(lon / 15)
    wrong = [0.0, 60.0, -60.0, 120.0, 330.0, float(random.integers(2, 25))][
        random.choice(6, p=[0.4, 0.1, 0.1, 0.1, 0.1, 0.2])
    ]
    reset = _START + random.uniform(60, 150) * _DAY if random.random() < 0.2 else None
    return Clocks(home, home + wrong, home + float(random.choice([0, 0, 60, -60])), reset)


def _at_home(
    random: np.random.Generator, home: np.ndarray, now: float, weeks: int | None = None
) -> tuple[list[Visit], float]:
    visits = []
    for _ in range(weeks or int(random.integers(4, 9))):
        at = now + random.uniform(0, 6) * _DAY
        visits.append(_visit(random, home, at, 4.0, away=False))
        now += 7 * _DAY
    return visits, now


def _trip(random: np.random.Generator, cities: np.ndarray, now: float) -> tuple[list[Visit], float]:
    visits: list[Visit] = []
    here = cities[0]
    for stop in [*random.choice(len(cities) - 1, int(random.integers(2, 6)), replace=False) + 1, 0]:
        there = cities[stop]
        km = float(haversine_km(*here, *there))
        by = "plane" if km > 900 else str(random.choice(["car", "train"]))
        arrival = now + km / SPEEDS[by] + (3 * _HOUR if by == "plane" else 0)
        if by != "plane":
            for share in np.sort(random.uniform(0.1, 0.9, 2)):
                on_the_way = here + share * _way(here, there)
                visits.append(_visit(random, on_the_way, now + share * (arrival - now), 0.2, away=True, longest=6.0))
        now, here = arrival, there
        if stop:
            for _ in range(int(random.integers(1, 4))):
                spots = int(random.integers(2, 5))
                for hour in np.sort(random.uniform(0.5, 12, spots)):
                    visits.append(_visit(random, there, now + hour * _HOUR, 2.5, away=True))
                now += _DAY
    return visits, now


def _way(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Straight on the map, the short way round."""
    way = there - here
    way[1] = (way[1] + 180) % 360 - 180
    return way


def _visit(
    random: np.random.Generator, centre: np.ndarray, at: float, spread_km: float, away: bool, longest: float = 60.0
) -> Visit:
    lat, lon = _near(random, centre, spread_km)
    return Visit(at, at + random.uniform(0.3, 1) * longest, lat, lon, away)


def _near(random: np.random.Generator, place: np.ndarray, km: float) -> tuple[float, float]:
    north, east = random.normal(0, km, 2) / _KM_A_DEGREE
    lat = float(place[0] + north)
    return lat, float((place[1] + east / np.cos(np.radians(lat)) + 180) % 360 - 180)


def _both(random: np.random.Generator, visits: list[Visit], clocks: Clocks, shared: int | None) -> list[Shots]:
    """The telephone's, and the camera's."""
    away = [number for number, visit in enumerate(visits) if visit.away]
    of_both = set(
        range(len(visits)) if shared is None else random.choice(away, min(shared, len(away)), replace=False).tolist()
    )
    mine = [visit for number, visit in enumerate(visits) if number in of_both or (shared is not None and number % 2)]
    others = [
        visit for number, visit in enumerate(visits) if number in of_both or (shared is not None and not number % 2)
    ]
    camera = _shots(random, Device.CAMERA, mine, 4, clocks)
    phone = _shots(random, Device.PHONE, others, 2, clocks)
    starts = np.array([visit.start for visit in mine])
    seen = np.array([number in of_both for number, visit in enumerate(visits) if visit in mine])
    again = seen[np.searchsorted(starts, camera.at, "right") - 1] & (random.random(len(camera)) < AT_ONE_MOMENT)
    at, place = camera.at[again] + random.uniform(-0.3, 0.3, again.sum()), camera.place[again]
    beside = Shots(np.full(len(at), Device.PHONE.value), at, at, place, place)
    phone = _joined([phone, beside])
    stale = np.flatnonzero(random.random(len(phone)) < STALE)
    gps = phone.place + random.normal(0, 0.01 / _KM_A_DEGREE, phone.place.shape)
    gps[stale] = phone.place[np.maximum(stale - 8, 0)]
    return [camera, Shots(phone.device, phone.at, phone.clock, phone.place, gps)]


def _shots(random: np.random.Generator, device: Device, visits: list[Visit], mean: int, clocks: Clocks) -> Shots:
    at, place = [], []
    for visit in visits:
        moments = np.sort(random.uniform(visit.start, visit.stop, 1 + random.poisson(mean - 1)))
        at += moments.tolist()
        place += [_near(random, np.array([visit.lat, visit.lon]), 0.05) for _ in moments]
    at, place = np.array(at), np.array(place).reshape(-1, 2)
    return Shots(np.full(len(at), device.value), at, at + clocks.of(device, at), place, np.full(place.shape, np.nan))


def _joined(shots: list[Shots]) -> Shots:
    columns = [np.concatenate([getattr(one, name) for one in shots]) for name in vars(shots[0])]
    order = np.lexsort((columns[1], columns[0]))
    return Shots(*(column[order] for column in columns))
