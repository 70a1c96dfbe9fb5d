"""Runs of predictions against the truth: everything that tables, plots and the report are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from geoloc.errors import UsageError
from geoloc.estimate.spread import NEAR_KM
from geoloc.evaluation.candidates import CandidateQuality, CandidateTally
from geoloc.evaluation.datasets import Dataset
from geoloc.evaluation.matching import Match, match
from geoloc.evaluation.metrics import Judged, Measured, measure
from geoloc.evaluation.placing import NamedTruth, name_truth, shares
from geoloc.evaluation.positions import Positions
from geoloc.evaluation.protocol import Protocol
from geoloc.evaluation.reliability import Reliability, coverage, reliability
from geoloc.geo.distance import valid_coordinates
from geoloc.schema import CONFIDENCES

_SWAPPED_KM, _SWAPPED_SHARE = 200, 0.2
"""Swapping latitude and longitude is suggested where it brings this share of the answers more within so many km."""


@dataclass(frozen=True)
class RunResult:
    """One run on the n photos that are judged, in the truth's order."""

    measured: Measured
    lat: np.ndarray
    lon: np.ndarray
    km: np.ndarray
    """(n,) infinite where there is no answer."""
    confidence: dict[int, np.ndarray]
    """By threshold, (n,); NaN where there is none. Empty for predictions without confidences."""
    calibrated: bool
    radius_km: np.ndarray | None
    candidates: CandidateQuality | None
    reliability: dict[int, Reliability]
    coverage: float
    """Share of the radii that hold the truth; NaN without radii."""

    @property
    def name(self) -> str:
        return self.measured.run


@dataclass(frozen=True)
class Evaluation:
    protocol: Protocol
    dataset: Dataset | None
    truth: str
    ids: pa.Array
    """(n,) of the photos that are judged."""
    lat: np.ndarray
    lon: np.ndarray
    places: NamedTruth
    authors: int | None
    """How many, where they are known: intervals are by author then."""
    runs: list[RunResult]
    notes: list[str] = field(default_factory=list)


def evaluate(
    runs: Mapping[str, Positions], truth: Positions, protocol: Protocol | None = None, dataset: Dataset | None = None
) -> Evaluation:
    """Judge runs of predictions, by name, on the photos of the truth.

    Raises UsageError where there is nothing to be judged.
    """
    protocol = protocol or Protocol()
    matches = {name: match(predictions, truth) for name, predictions in runs.items()}
    judged, notes = _judged(truth, runs, matches)
    lat, lon = truth.lat[judged], truth.lon[judged]
    places = name_truth(lat, lon)
    answers = {name: _Answers.of(runs[name], matches[name], judged, protocol, lat, lon) for name in runs}
    groups = truth.groups(np.flatnonzero(judged))
    authors = None if groups is None else len(np.unique(groups))
    tallies = [Judged(name, run.km, shares(places, run.lat, run.lon)) for name, run in answers.items()]
    results = [
        _result(
            measured, answers[measured.run], runs[measured.run], matches[measured.run].row[judged], (lat, lon), protocol
        )
        for measured in measure(tallies, protocol, groups)
    ]
    notes = _dataset_notes(dataset, len(truth)) + [note for found in matches.values() for note in found.notes] + notes
    notes += [note for name, run in answers.items() for note in _position_notes(name, run, lat, lon, protocol)]
    ids = truth.ids[next(iter(matches.values())).id_columns[1]].filter(pa.array(judged))
    return Evaluation(protocol, dataset, truth.source, ids, lat, lon, places, authors, results, notes)


@dataclass(frozen=True)
class _Answers:
    """A run's, for the photos that are judged (n,)."""

    lat: np.ndarray
    lon: np.ndarray
    km: np.ndarray
    given: tuple[np.ndarray, np.ndarray]
    """``lat`` and ``lon`` as they were; above, what is no place on the Earth is NaN, and longitudes are within ±180."""
    extra: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, run: Positions, found: Match, judged: np.ndarray, protocol: Protocol, lat: np.ndarray, lon: np.ndarray
    ) -> "_Answers":
        row = found.row[judged]
        columns = {name: _taken(values, row) for name, values in {"lat": run.lat, "lon": run.lon, **run.extra}.items()}
        given = columns.pop("lat"), columns.pop("lon")
        real = (np.abs(given[0]) <= 90) & (np.abs(given[1]) <= 360)  # NaN compares false
        answer_lat, answer_lon = (np.where(real, axis, np.nan) for axis in given)
        answer_lon = np.where(np.abs(answer_lon) > 180, (answer_lon + 180) % 360 - 180, answer_lon)
        km = protocol.km(answer_lat, answer_lon, lat, lon)
        return cls(answer_lat, answer_lon, np.where(real, km, np.inf), given, columns)


def _taken(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.where(row >= 0, values[row], np.nan)


def _judged(
    truth: Positions, runs: Mapping[str, Positions], matches: Mapping[str, Match]
) -> tuple[np.ndarray, list[str]]:
    """(truth rows,) the photos that count, the same for every run; and what there is to say about the others."""
    placed = valid_coordinates(truth.lat, truth.lon)
    notes = []
    if not placed.all():
        notes.append(f"{int((~placed).sum()):,} photos of the truth have no valid position there; they are left out")
    judged = placed.copy()
    for name, run in runs.items():
        if run.kept is not None:
            row = matches[name].row
            kept = (row >= 0) & run.kept[row]
            judged &= ~kept
            if (kept & placed).any():
                notes.append(
                    f"{name}: {int((kept & placed).sum()):,} photos kept the GPS they carried, which is no prediction; they are "
                    "left out (geotag_archive.py --relocate locates them too)"
                )
    if not judged.any():
        raise UsageError(f"TRUTH {truth.source}: there is no photo to judge. " + " ".join(notes))
    return judged, notes


def _result(
    measured: Measured, answers: _Answers, run: Positions, row: np.ndarray, truth: tuple, protocol: Protocol
) -> RunResult:
    extra = answers.extra
    calibrated = {t: extra[name] for t, name in CONFIDENCES.items() if name in extra}
    calibrated = {t: values for t, values in calibrated.items() if np.isfinite(values).any()}
    confidence = calibrated or ({NEAR_KM: extra["confidence"]} if "confidence" in extra else {})
    answered = np.isfinite(answers.km)
    curves = {
        t: reliability(np.where(answered, values, np.nan), protocol.within(answers.km, t))
        for t, values in confidence.items()
    }
    radius = extra.get("radius_km")
    return RunResult(
        measured,
        answers.lat,
        answers.lon,
        answers.km,
        confidence,
        bool(calibrated),
        radius,
        _candidate_quality(run, row, truth, protocol) if run.has_candidates else None,
        {t: curve for t, curve in curves.items() if curve is not None},
        float("nan") if radius is None else coverage(np.where(answered, radius, np.nan), answers.km),
    )


def _candidate_quality(
    run: Positions, row: np.ndarray, truth: tuple[np.ndarray, np.ndarray], protocol: Protocol
) -> CandidateQuality | None:
    photo = np.full(len(run), -1)
    photo[row[row >= 0]] = np.flatnonzero(row >= 0)
    tally = CandidateTally(protocol)
    for start, lists in run.candidates():
        photos = photo[start : start + len(lists)]
        wanted = photos >= 0
        tally.add(lists.filter(pa.array(wanted)), truth[0][photos[wanted]], truth[1][photos[wanted]])
    return tally.result(len(row))


def _dataset_notes(dataset: Dataset | None, rows: int) -> list[str]:
    if dataset is None or dataset.photos in (None, rows):
        return []
    return [
        f"{dataset.title} as published has {dataset.photos:,} photos, this truth has {rows:,}: figures may not compare"
    ]


def _position_notes(name: str, run: _Answers, lat: np.ndarray, lon: np.ndarray, protocol: Protocol) -> list[str]:
    notes = []
    given_lat, given_lon = run.given
    answered = np.isfinite(run.km)
    impossible = int((np.isfinite(given_lat) & np.isfinite(given_lon) & ~answered).sum())
    if impossible:
        notes.append(
            f"{name}: {impossible:,} positions are no place on the Earth (latitude beyond ±90, longitude beyond ±360); they count as wrong"
        )
    same = int((run.km == 0).sum())
    if same > answered.sum() / 2:
        notes.append(
            f"{name}: {same:,} of {int(answered.sum()):,} answers equal the truth exactly: is this column the truth itself?"
        )
    swappable = (np.abs(given_lon) <= 90) & (np.abs(given_lat) <= 180)
    after = np.full(len(lat), np.inf)
    after[swappable] = protocol.km(given_lon[swappable], given_lat[swappable], lat[swappable], lon[swappable])
    near, near_swapped = (int(protocol.within(km, _SWAPPED_KM).sum()) for km in (run.km, after))
    if near_swapped - near > _SWAPPED_SHARE * swappable.sum():
        notes.append(
            f"{name}: latitude and longitude look swapped, here or in the truth: {near:,} answers are within {_SWAPPED_KM} km "
            f"of the truth as they are, and {near_swapped:,} with the two exchanged"
        )
    return notes
