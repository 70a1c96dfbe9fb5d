"""Households that travel: what their photos make of each other, how clocks are found, and whether who stayed at home stays there.

python -m tests.bench.bench_trips [households]

Places, times and clocks are geoloc.toy.trips'; each photo's estimate is right as often as a published system's is (40 % within
25 km), or lies 300 or 4,000 km off. ``GPS`` is the share of the telephone's photos that carry it.
"""

import sys

import numpy as np

from geoloc.context.collection import Collection, Together
from geoloc.context.company import Company, Meeting
from geoloc.context.locating import locate_collection
from geoloc.geo.distance import haversine_km
from geoloc.toy.trips import Device, Household, household, somewhere

NEAR = 0.4
GPS = (0.0, 0.05, 0.2, 1.0)
SHARED = 5
"""Visits that camera and telephone both took photos at, from which on a clock is to be found."""


def estimates(random: np.random.Generator, places: np.ndarray) -> np.ndarray:
    km = np.array([0.3, 8, 300, 4000])[
        random.choice(4, len(places), p=[0.4 * NEAR, 0.6 * NEAR, 0.4 * (1 - NEAR), 0.6 * (1 - NEAR)])
    ]
    off = random.normal(0, 1, places.shape) * km[:, None] / 111.2
    lat = np.clip(places[:, 0] + off[:, 0], -89, 89)
    return np.stack([lat, (places[:, 1] + off[:, 1] / np.cos(np.radians(lat)) + 180) % 360 - 180], axis=1)


def collection(random: np.random.Generator, one: Household, gps: float, company: bool = True) -> Collection:
    shots = one.shots
    known = ~np.isnan(shots.gps[:, :1]) & (random.random((len(shots), 1)) < gps)
    phone, folder = shots.device == Device.PHONE.value, np.zeros(len(shots), np.int64)
    return Collection(
        shots.device,
        shots.clock,
        True,
        np.where(known, shots.gps, np.nan),
        np.where(known, np.nan, estimates(random, shots.place))[:, None],
        1.0 - known,
        Company(folder, phone, np.zeros(len(shots), bool)) if company else None,
    )


def main(households: int = 100) -> None:
    worlds = [
        household(np.random.default_rng(seed), somewhere(np.random.default_rng(seed))) for seed in range(households)
    ]
    for gps in GPS:
        km = {"alone": [], "by their own camera": [], "in company": []}
        clocks, moved, at_home, covered = [], 0, 0, []
        for seed, one in enumerate(worlds):
            photos, apart = (collection(np.random.default_rng(seed), one, gps, together) for together in (True, False))
            joint, own = locate_collection(photos), locate_collection(apart)
            hidden = np.isnan(photos.known[:, 0])
            places = [photos.candidates[:, 0], *(np.stack([it.lat, it.lon], axis=1) for it in (own, joint))]
            off = [haversine_km(*place.T, *one.shots.place.T) for place in places]
            for name, values in zip(km, off, strict=True):
                km[name].append(values[hidden])
            covered.append((off[2] <= joint.radius_km)[hidden])
            partner = hidden & (one.shots.device == Device.PARTNER.value)
            moved += int((partner & (off[2] > 25) & (off[1] <= 25)).sum())
            at_home += int(partner.sum())
            clocks.append(_clocks(one, joint))
        print(
            f"\nGPS in {gps:.0%} of the telephone's photos; km of {sum(map(len, km['alone'])):,} photos without, {households} households"
        )
        for name, values in km.items():
            values = np.concatenate(values)
            print(
                f"  {name:20} median {np.median(values):8.1f}; within 1/25/200 km "
                + "/".join(f"{100 * np.mean(values < t):.1f}" for t in (1, 25, 200))
            )
        print(
            f"  radius holds {np.concatenate(covered).mean():.1%}; partner at home moved away: {moved} of {at_home:,} photos"
        )
        sums = np.sum(clocks, axis=0)
        print(
            f"  cameras with {SHARED} shared visits: {sums[0]}; in company {sums[1]}; clocks told {sums[2]}, right to a minute {sums[3]}\n"
            f"  partners' clocks told: {sums[4]} of {households}; companions in company {sums[5]}, of which photos within an hour of right {sums[6]} of {sums[7]}\n"
            f"  offsets of any two told: {sums[8]}, of which wrong {sums[9]}"
        )


def _clocks(one: Household, joint: Together) -> list[int]:
    of = {
        device: [m for m in joint.meetings if m.chain == device.value and m.with_chain == Device.PHONE.value]
        for device in Device
    }
    camera = of[Device.CAMERA]
    told = [m.spell for m in camera if m.spell.told]
    right = bool(told) and all(abs(spell.offset - one.clocks.camera) <= 1.01 for spell in told)
    partner = any(m.spell.told for m in of[Device.PARTNER])
    shots = one.shots
    rows = shots.device == Device.COMPANION.value
    offset, true = np.full(rows.sum(), np.nan), one.clocks.of(Device.COMPANION, shots.at[rows])
    for m in of[Device.COMPANION]:
        offset[(shots.clock[rows] >= m.spell.start) & (shots.clock[rows] <= m.spell.stop)] = m.spell.offset
    two = [m for m in joint.meetings if m.spell.told and not m.again]
    wrong = sum(not _is_right(one, m) for m in two)
    near = int((np.abs(offset - true) <= 60).sum())
    met = int((~np.isnan(offset)).sum())
    return [
        _shared(one) >= SHARED,
        bool(camera),
        bool(told),
        right,
        partner,
        bool(of[Device.COMPANION]),
        near,
        met,
        len(two),
        wrong,
    ]


def _is_right(one: Household, meeting: Meeting) -> bool:
    """To a minute, or what it says; a clock that was reset has two offsets."""
    at = np.array([one.visits[0].start, one.visits[-1].stop])
    clocks = [one.clocks.of(Device(chain), at) for chain in (meeting.chain, meeting.with_chain)]
    true = np.subtract.outer(*clocks).ravel()
    return bool((np.abs(true - meeting.spell.offset) <= max(1.01, meeting.spell.give_or_take)).any())


def _shared(one: Household) -> int:
    """Visits of which both have photos."""
    starts = np.array([visit.start for visit in one.visits])
    seen = [
        np.unique(np.searchsorted(starts, one.shots.at[one.shots.device == device.value], "right"))
        for device in (Device.CAMERA, Device.PHONE)
    ]
    return len(np.intersect1d(*seen))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
