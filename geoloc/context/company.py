"""Photos that were taken in company: of other cameras, and of logs, whose places are guests in a camera's chain."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from geoloc.context.chains import vectors_or_zeros
from geoloc.context.clocks import REACH, Clock, Sightings, Spell, spells
from geoloc.context.transition import AIRLINER_KM_PER_MINUTE, Transition
from geoloc.errors import UsageError
from geoloc.geo.distance import haversine_km, unit_vectors
from geoloc.tracks.track import Track

REFERENCES = 4
"""Of cameras that share folders, those with most known places that each is compared with."""
LEAST = 5
"""Photos that a camera has, to be compared."""
KNOWN = 0.98
"""That a known place is right."""
BETWEEN, STILL, STILL_KM = 10.0, 60.0, 0.2
"""Minutes between points of a log of which a place between them is taken for known: any, and two of one place, for many loggers
write none while nothing moves. A longer silence may be a logger's that lay in a drawer while its owner was away."""
ELSEWHERE_KM, ELSEWHERE = 25.0, 0.8
"""From a log's place, and how sure a photo's own chain has to be of being so far from it, for the log not to be asked."""
LOG_REACH = 720.0
"""Minutes: a log says nothing of where its owner was longer before, or after."""
NEAREST = 2
"""Of another camera's photos, known places and others, taken from before a photo and from after it."""


NO_TRACK = "no camera was on any of them, as far as can be told; if one was, say how far its clock is ahead of UTC (--clock-offset)"


@dataclass(frozen=True)
class Company:
    """Who may have been with whom, of n photos that are timed."""

    folder: np.ndarray
    """(n,) integers: chains that share one are of people who may know each other."""
    utc: np.ndarray
    """(n,) bool: positions are minutes of UTC."""
    told: np.ndarray
    """(n,) bool: that is because somebody said so, and nothing else is looked for."""
    tracks: tuple[Track, ...] = ()
    """Of anybody's whose photos these are."""


@dataclass(frozen=True)
class CompanyOptions:
    """What somebody says of cameras and of where they were."""

    tracks: tuple[Track, ...] = ()
    clock_offsets: dict[str, float] = field(default_factory=dict)
    """Minutes that a camera's clock is ahead of UTC, by its name."""

    def by_told_clock(self, rows: pa.Table, position: np.ndarray, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions (n,), minutes of UTC where that is told of the camera (a column of ``rows``), from the ``minutes`` that it showed,
        NaN where that is not known; and whether it is."""
        if not self.clock_offsets or "camera" not in rows.column_names:
            return position, np.zeros(len(position), bool)
        offsets = [self.clock_offsets.get(name, np.nan) for name in rows["camera"].cast(pa.string()).to_pylist()]
        offsets = np.array(offsets, dtype=np.float64)
        told = ~np.isnan(offsets) & ~np.isnan(minutes)
        return np.where(told, minutes - np.nan_to_num(offsets), position), told

    def state(self) -> dict:
        """That decides the results."""
        digest = hashlib.blake2b(digest_size=16)
        for track in self.tracks:
            digest.update(track.name.encode() + track.minutes.tobytes() + track.places.tobytes())
        return {"tracks": digest.hexdigest() if self.tracks else None, "clock_offsets": self.clock_offsets}


_OFFSET = re.compile(r"([-+])(\d{1,2}):?(\d{2})(?::?(\d{2}))?")


def read_clock_offsets(texts: tuple[str, ...]) -> dict[str, float]:
    """Of CAMERA=+HH:MM:SS, minutes by camera. Raises UsageError.

    >>> read_clock_offsets(("Canon EOS 80D=+01:00:30", "Old=-3:30"))
    {'Canon EOS 80D': 60.5, 'Old': -210.0}
    """
    offsets = {}
    for text in texts:
        camera, _, offset = text.rpartition("=")
        found = _OFFSET.fullmatch(offset)
        if not camera or not found:
            raise UsageError(
                f"--clock-offset {text}: must be a camera's name and its clock's lead over UTC: 'NIKON D80=+01:00:00'"
            )
        sign, hours, minutes, seconds = found.groups(default="0")
        if int(minutes) > 59 or int(seconds) > 59:
            raise UsageError(f"--clock-offset {text}: {offset} has more than 59 minutes, or seconds")
        if camera in offsets:
            raise UsageError(f"--clock-offset {text}: tells of {camera} a second time")
        offsets[camera] = float(f"{sign}1") * (60 * int(hours) + int(minutes) + int(seconds) / 60)
    return offsets


@dataclass(frozen=True)
class Meeting:
    """A camera in company for a while."""

    chain: int
    with_chain: int
    """Of another camera; -1 for a log."""
    spell: Spell
    """The offset is that of the chain's positions from the other's."""
    from_utc: bool
    """The other's positions are UTC."""
    again: bool = False
    """It has been told before, of the other."""


@dataclass(frozen=True)
class Guests:
    """g places in chains of others."""

    chain: np.ndarray
    position: np.ndarray
    """(g,) by the clock of the chain they are guests in."""
    row: np.ndarray
    """(g,) the photo, or -1."""
    track: np.ndarray
    """(g,) the track, or -1."""
    place: np.ndarray
    """(g, 2) of a point of a track."""

    @classmethod
    def joined(cls, parts: list["Guests"]) -> "Guests":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


NOBODY = Guests(*(np.zeros(0, np.int64),) * 4, np.zeros((0, 2)))


@dataclass(frozen=True)
class Log:
    """Tracks that do not overlap in time, as one."""

    minutes: np.ndarray
    places: np.ndarray
    track: np.ndarray
    """(n,) which of the tracks each point is of."""

    @property
    def sightings(self) -> Sightings:
        n = len(self.minutes)
        return Sightings(self.minutes, unit_vectors(*self.places.T), np.full(n, KNOWN), np.ones(n, bool))

    def elsewhere(self, at: np.ndarray, places: np.ndarray) -> np.ndarray:
        """(m,) bool: at a moment, its owner was far from a place (m, 2), on the way between the points before and after it included."""
        after = np.searchsorted(self.minutes, at)
        before, after = np.maximum(after - 1, 0), np.minimum(after, len(self.minutes) - 1)
        near = np.zeros(len(at), bool)
        for point in (before, after):
            reach = ELSEWHERE_KM + AIRLINER_KM_PER_MINUTE * np.maximum(np.abs(self.minutes[point] - at) - BETWEEN, 0)
            near |= haversine_km(*self.places[point].T, *places.T) <= reach
        return ~near & ~np.isnan(places[:, 0])

    def guests(self, chain: int, positions: np.ndarray, offset: float) -> Guests:
        """Where its owner was at positions (m,) of a chain whose clock is ahead by an offset: at that moment, or at the points before and
        after it."""
        at = positions - offset
        after = np.searchsorted(self.minutes, at)
        before, after = np.maximum(after - 1, 0), np.minimum(after, len(self.minutes) - 1)
        gap = self.minutes[after] - self.minutes[before]
        still = haversine_km(*self.places[before].T, *self.places[after].T) <= STILL_KM
        inside = (self.minutes[before] <= at) & (at <= self.minutes[after])
        between = inside & ((gap <= BETWEEN) | (still & (gap <= STILL)))
        share = np.where(gap > 0, (at - self.minutes[before]) / np.maximum(gap, 1e-9), 0)[between, None]
        way = self.places[after][between] - self.places[before][between]
        way[:, 1] = (way[:, 1] + 180) % 360 - 180
        place = self.places[before][between] + share * way
        place[:, 1] = (place[:, 1] + 180) % 360 - 180
        beside = np.stack([before, after])[:, ~between]
        ends = np.unique(beside[np.abs(self.minutes[beside] - at[~between]) <= LOG_REACH])
        position = np.concatenate([positions[between], self.minutes[ends] + offset])
        return Guests(
            np.full(len(position), chain),
            position,
            np.full(len(position), -1),
            np.concatenate([self.track[before][between], self.track[ends]]),
            np.concatenate([place, self.places[ends]]),
        )


def logs(tracks: tuple[Track, ...]) -> list[Log]:
    """As few as tracks that overlap allow: each is of one person."""
    lists: list[list[int]] = []
    for number in sorted(range(len(tracks)), key=lambda number: tracks[number].minutes[0]):
        free = (one for one in lists if tracks[one[-1]].minutes[-1] < tracks[number].minutes[0])
        first = next(free, None)
        if first is None:
            lists.append([number])
        else:
            first.append(number)
    return [
        Log(
            np.concatenate([tracks[number].minutes for number in numbers]),
            np.concatenate([tracks[number].places for number in numbers]),
            np.concatenate([np.full(len(tracks[number]), number) for number in numbers]),
        )
        for numbers in lists
    ]


class Acquaintances:
    """Chains that may have been together, and when they were."""

    def __init__(
        self,
        company: Company,
        chain: np.ndarray,
        position: np.ndarray,
        places: np.ndarray,
        sure: np.ndarray,
        known: np.ndarray,
    ) -> None:
        """Of n photos: ``places`` (n, 2) where each is taken to be by its own chain, NaN where nothing says, ``sure`` (n,) how
        likely that is about right, ``known`` (n,) bool."""
        self._company, self._position, self._places = company, position, places
        self._sure, self._known = np.where(known, KNOWN, np.nan_to_num(sure)), known
        rows = np.flatnonzero(~np.isnan(position))
        rows = rows[np.lexsort((position[rows], chain[rows]))]
        begins = np.flatnonzero(np.diff(chain[rows], prepend=-1))
        ends = np.append(begins, len(rows))[1:]
        self._rows = {
            int(chain[rows[begin]]): rows[begin:end]
            for begin, end in zip(begins, ends, strict=True)
            if end - begin >= LEAST
        }
        self._logs = logs(company.tracks)
        self._of_logs: dict[int, list[tuple[Log, Spell]]] = {}

    def meetings(self, transition: Transition) -> list[Meeting]:
        """Of chains with others, each told for both, and with logs."""
        found: list[Meeting] = []
        for one, other in self._pairs():
            for spell in spells(self._sightings(one), self._sightings(other), transition, self._clock(one, other)):
                start, stop = spell.start - spell.offset, spell.stop - spell.offset
                mirrored = replace(spell, start=start, stop=stop, offset=-spell.offset)
                utc = [bool(self._company.utc[self._rows[chain][0]]) for chain in (one, other)]
                found += [Meeting(one, other, spell, utc[1]), Meeting(other, one, mirrored, utc[0], again=True)]
        for log in self._logs:
            sightings = log.sightings
            for chain in self._rows:
                clock = self._clock(chain, None)
                for spell in spells(self._sightings(chain), sightings, transition, clock, of_log=True):
                    found.append(Meeting(chain, -1, spell, from_utc=True))
                    self._of_logs.setdefault(chain, []).append((log, spell))
        return found

    def guests(self, meetings: list[Meeting]) -> Guests | None:
        """None where nobody is any."""
        found = [self._of_other(meeting) for meeting in meetings if meeting.with_chain >= 0]
        for chain, pairs in self._of_logs.items():
            for log, spell in pairs:
                rows = self._within(chain, spell)
                elsewhere = log.elsewhere(self._position[rows] - spell.offset, self._places[rows])
                rows = rows[~(elsewhere & (self._sure[rows] >= ELSEWHERE))]
                found.append(log.guests(chain, self._position[rows], spell.offset))
        return Guests.joined(found) if found else None

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """Chains that share a folder, one of each two being among those with most known places."""
        chains = np.array(sorted(self._rows), np.int64)
        if len(chains) < 2:
            return
        of = np.repeat(chains, [len(self._rows[chain]) for chain in chains])
        folders = self._company.folder[np.concatenate([self._rows[chain] for chain in chains])]
        shared = np.unique(np.stack([folders, of]), axis=1)
        begins = np.flatnonzero(np.diff(shared[0], prepend=-1))
        pairs: set[tuple[int, int]] = set()
        for members in np.split(shared[1], begins[1:]):
            ranked = sorted(members.tolist(), key=self._rank)
            for place, reference in enumerate(ranked[:REFERENCES]):
                pairs.update((other, reference) for other in ranked[place + 1 :])
        yield from sorted(pairs)

    def _rank(self, chain: int) -> tuple:
        """The best clock first."""
        rows = self._rows[chain]
        return (not self._company.utc[rows[0]], -int(self._known[rows].sum()), -len(rows), chain)

    def _sightings(self, chain: int) -> Sightings:
        rows = self._rows[chain]
        places = vectors_or_zeros(*self._places[rows].T)
        return Sightings(self._position[rows], places, self._sure[rows], self._known[rows])

    def _clock(self, chain: int, other: int | None) -> Clock:
        """``other``: None for a log."""
        rows = self._rows[chain]
        utc, others_utc = self._company.utc[rows[0]], other is None or self._company.utc[self._rows[other][0]]
        if utc and others_utc:
            return Clock(told=bool(self._company.told[rows[0]]), both_utc=True)
        if utc == others_utc:
            return Clock()
        lon = self._places[rows if others_utc else self._rows[other], 1]
        zone = 4 * float(np.nanmedian(lon)) if not np.isnan(lon).all() else 0.0  # minutes: a degree is four
        return Clock(zone if others_utc else -zone, zone_spread=1.0)

    def _within(self, chain: int, spell: Spell) -> np.ndarray:
        rows = self._rows[chain]
        return rows[(self._position[rows] >= spell.start) & (self._position[rows] <= spell.stop)]

    def _of_other(self, meeting: Meeting) -> Guests:
        at = np.sort(self._position[self._within(meeting.chain, meeting.spell)])
        if not len(at):  # it was taken out only before, and afterwards
            return NOBODY
        others = self._rows[meeting.with_chain]
        own = self._position[others] + meeting.spell.offset
        near = (own >= at[0] - REACH) & (own <= at[-1] + REACH)
        others, own = others[near], own[near]
        chosen = np.zeros(len(others), bool)
        for those in (np.flatnonzero(self._known[others]), np.arange(len(others))):
            place = np.searchsorted(own[those], at)
            around = place[:, None] + np.arange(-NEAREST, NEAREST)
            around = around[(around >= 0) & (around < len(those))]
            chosen[those[around]] = True
        n = int(chosen.sum())
        nowhere, no_track = np.full((n, 2), np.nan), np.full(n, -1)
        return Guests(np.full(n, meeting.chain), own[chosen], others[chosen], no_track, nowhere)
