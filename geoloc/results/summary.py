"""What a run came to: counts, accuracy where the truth is known, and what went wrong."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.candidates.options import Prices
from geoloc.errors import CLASSES
from geoloc.geo.distance import THRESHOLDS_KM, geodesic_km, valid_coordinates
from geoloc.geo.precision import COUNTRY_KM
from geoloc.schema import GENERATION

ADVICE = {
    "permanent": "the files are at fault",
    "access": "to be put right; the same command tries them again",
    "passing": "the same command tries them again",
}
MAX_ERRORS, MAX_PROBLEMS = 1_000, 100
MOST = {"errors": MAX_ERRORS, "gps_problems": MAX_PROBLEMS, "doubts": MAX_PROBLEMS}
"""Of the lists of photos."""
COLUMNS = ["id", "uri", "status", "lat", "lon", "true_lat", "true_lon", "place", "method", "error_kind", "error"]
COLUMNS += ["radius_km", "gps", "gps_problem", "exif_from", "taken_from", "generation"]
COLUMNS += ["estimate_lat", "estimate_lon", "because", "alone_lat", "alone_lon", "gps_doubt"]
MOVED_KM = 25
DOUBTED = 0.5
"""A photo's own position is doubtful where it is probably wrong, by its neighbours."""
UNTOLD = ("unreadable", "implausible")
"""States of a position that a photo carries and that was not read."""


@dataclass
class Summary:
    statuses: Counter = field(default_factory=Counter)
    methods: Counter = field(default_factory=Counter)
    """Of the photos that were looked at."""
    countries: Counter = field(default_factory=Counter)
    error_kinds: Counter = field(default_factory=Counter)
    errors: list[dict] = field(default_factory=list)
    """The first MAX_ERRORS failed photos: uri, error_kind, error."""
    gps: Counter = field(default_factory=Counter)
    """States of the positions that photos carry."""
    gps_from: Counter = field(default_factory=Counter)
    """Where those that were read came from: exif, xmp, or the kind of sidecar."""
    gps_problems: list[dict] = field(default_factory=list)
    """The first MAX_PROBLEMS of those that were not read: uri, gps, gps_problem."""
    heard: int = 0
    """Photos on which their neighbours had a say, and how many of them moved more than MOVED_KM."""
    moved: int = 0
    doubted: int = 0
    """Own positions that neighbours contradict."""
    doubts: list[dict] = field(default_factory=list)
    """The first MAX_PROBLEMS of them: uri, lat, lon, gps_doubt."""
    times_from: Counter = field(default_factory=Counter)
    """Where times came from."""
    asked: int = 0
    """Photos that a model was asked about for candidates."""
    generation: Counter = field(default_factory=Counter)
    """The sums of schema.GENERATION."""
    partly: Counter = field(default_factory=Counter)
    """What was wrong with photos that were answered nevertheless: not ranked, or without generated candidates."""
    judged: int = 0
    """Photos with a known position that were to be located; one that failed counts as wrong at every threshold."""
    within: Counter = field(default_factory=Counter)
    """Of those, how many lie nearer to the truth than each of THRESHOLDS_KM (strictly, WGS84 geodesic)."""
    errors_km: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, tables: Iterable[pa.Table]) -> "Summary":
        """Of batches of RESULT with COLUMNS."""
        summary = cls()
        for table in tables:
            summary._add(table)
        return summary

    @classmethod
    def joined(cls, summaries: Iterable["Summary"]) -> "Summary":
        """Of all that these are of, in their order."""
        total = cls()
        for one in summaries:
            for name, most in MOST.items():
                of = getattr(total, name)
                of += getattr(one, name)[: most - len(of)]
            for name in {one.name for one in fields(cls)} - MOST.keys():
                setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    def _add(self, table: pa.Table) -> None:
        status = np.array(table["status"].to_pylist(), object)
        self.statuses.update(status.tolist())
        looked_at = table.filter(pa.array(np.isin(status, ("located", "uncertain"))))
        self.methods.update(looked_at["method"].to_pylist())
        country = table["place"].combine_chunks().field("country").to_pylist()
        placed = np.isfinite(table["lat"].to_numpy())
        precise = ~(table["radius_km"].to_numpy() > COUNTRY_KM)  # a photo's own position has no radius
        names = (
            (name or "(open sea)") if known else "(radius too large)"
            for name, known in zip(country, precise, strict=True)
        )
        self.countries.update(name for name, p in zip(names, placed, strict=True) if p)
        self.partly.update(looked_at["error_kind"].drop_null().to_pylist())
        generation = table["generation"].combine_chunks()
        self.asked += len(generation) - generation.null_count
        for name, values in zip(GENERATION.names, generation.flatten(), strict=True):
            self.generation[name] += pc.sum(values).as_py() or 0
        failed = table.filter(pa.array(status == "failed"))
        self.error_kinds.update(failed["error_kind"].to_pylist())
        room = MAX_ERRORS - len(self.errors)
        self.errors += failed.select(["uri", "error_kind", "error"]).slice(0, room).to_pylist()
        self.gps.update(table["gps"].drop_null().to_pylist())
        self.gps_from.update(_kind(name) for name in table["exif_from"].drop_null().to_pylist())
        self.times_from.update(_kind(name) for name in table["taken_from"].drop_null().to_pylist())
        problems = table.filter(pa.array(np.isin(np.array(table["gps"].to_pylist(), object).astype(str), UNTOLD)))
        room = MAX_PROBLEMS - len(self.gps_problems)
        self.gps_problems += problems.select(["uri", "gps", "gps_problem"]).slice(0, room).to_pylist()
        self._add_context(table)
        lat, lon, true_lat, true_lon = (table[name].to_numpy() for name in ("lat", "lon", "true_lat", "true_lon"))
        judged = valid_coordinates(true_lat, true_lon) & (status != "kept")
        km = np.full(int(judged.sum()), np.inf)
        answered = np.isfinite(lat[judged])
        km[answered] = geodesic_km(*(a[judged][answered] for a in (lat, lon, true_lat, true_lon)))
        self.judged += len(km)
        self.errors_km.append(km)
        for threshold in THRESHOLDS_KM:
            self.within[threshold] += int((km < threshold).sum())

    def _add_context(self, table: pa.Table) -> None:
        heard = table.filter(table["because"].is_valid())
        names = ("estimate_lat", "estimate_lon", "alone_lat", "alone_lon")
        self.heard += heard.num_rows
        self.moved += int((geodesic_km(*(heard[name].to_numpy() for name in names)) > MOVED_KM).sum())
        doubted = table.filter(pc.fill_null(pc.greater(table["gps_doubt"], DOUBTED), False))
        self.doubted += doubted.num_rows
        room = MAX_PROBLEMS - len(self.doubts)
        self.doubts += doubted.select(["uri", "lat", "lon", "gps_doubt"]).slice(0, room).to_pylist()

    @property
    def rows(self) -> int:
        return self.statuses.total()

    @property
    def failures(self) -> dict[str, str]:
        """In words, by class: what to do, and which kinds with their counts."""
        failures = {}
        for name, advice in ADVICE.items():
            kinds = [(kind, count) for kind, count in self.error_kinds.most_common() if kind in CLASSES[name]]
            if kinds:
                failures[f"{name} ({advice})"] = ", ".join(f"{kind} {count:,}" for kind, count in kinds)
        return failures

    @property
    def median_km(self) -> float:
        """Of the judged photos that have an answer; NaN where none has."""
        km = np.concatenate([np.zeros(0), *self.errors_km])
        return float(np.median(km[np.isfinite(km)])) if np.isfinite(km).any() else float("nan")

    def generation_text(self, prices: Prices | None = None) -> str:
        """What asking a model came to, in words."""
        sums = self.generation
        text = f"{sums['replies']:,} replies, {sums['unread']:,} of them without a place; paid for {sums['requests']:,} requests with "
        text += f"{sums['prompt_tokens']:,} tokens and {sums['completion_tokens']:,} of replies"
        if prices and prices.known and self.asked:
            spent = prices.of(sums["prompt_tokens"], sums["completion_tokens"])
            text += f": {spent:,.2f}, {1000 * spent / self.asked:,.2f} a thousand photos"
        return text

    def lines(self, prices: Prices | None = None) -> list[str]:
        """For the console."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.statuses.most_common())
        lines = [f"{self.rows:,} photos: {counts}"]
        if self.countries:
            lines.append(
                "Countries: " + ", ".join(f"{name} {count:,}" for name, count in self.countries.most_common(5))
            )
        if self.gps_from:
            origins = ", ".join(f"{name} {count:,}" for name, count in self.gps_from.most_common())
            lines.append(f"Positions that photos carry: {self.gps['read']:,} ({origins})")
        if untold := sum(self.gps[state] for state in UNTOLD):
            states = ", ".join(f"{self.gps[state]:,} {state}" for state in UNTOLD if self.gps[state])
            examples = "; ".join(
                f"{one['uri'].rsplit('/', 1)[-1]}: {one['gps_problem']}" for one in self.gps_problems[:3]
            )
            lines.append(
                f"{untold:,} photos carry a position that was not read ({states}); estimates are exported over it only with "
                "--overwrite-unreadable-gps. "
                f"For example: {examples}"
            )
        if self.heard:
            lines.append(
                f"Neighbours of the same camera had a say on {self.heard:,} photos, and moved {self.moved:,} of them more than "
                f"{MOVED_KM} km"
            )
        if self.doubted:
            names = ", ".join(one["uri"].rsplit("/", 1)[-1] for one in self.doubts[:3])
            lines.append(
                f"Own positions that neighbours contradict: {self.doubted:,} ({names} …); they stay as they are"
            )
        if self.asked:
            lines.append(f"Candidates of a model: {self.asked:,} photos asked about, {self.generation_text(prices)}")
        if self.partly:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.partly.most_common())
            lines.append(f"Answered, but not ranked or without generated candidates: {kinds}")
        if len(self.methods) > 1:
            located = self.methods.total()
            shares = (f"{name} {count:,} ({100 * count / located:.1f} %)" for name, count in self.methods.most_common())
            lines.append(f"Answers by: {', '.join(shares)}")
        if self.error_kinds:
            lines += [f"Failures, {name}: {kinds}" for name, kinds in self.failures.items()]
        if self.judged:
            shares = ", ".join(f"{t} km {100 * self.within[t] / self.judged:.1f} %" for t in THRESHOLDS_KM)
            lines.append(
                f"Accuracy on the {self.judged:,} photos whose place is known (error < threshold, WGS84 geodesic, "
                f"photos without an answer count as wrong): {shares}; median {self.median_km:,.0f} km"
            )
        return lines


def _kind(source: str) -> str:
    """Of where something was read: as it is, or, for a sidecar, its kind."""
    name, _, part = source.partition(":")
    name = "Takeout" if name.lower().endswith(".json") else "XMP sidecar" if name.lower().endswith(".xmp") else name
    return f"{name}:{part}" if part and name != "Takeout" else name
