"""The photos of an archive as collections: by the camera, in the order of its clock, or of its files' numbers."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.context.chains import CANDIDATES, in_one_clock
from geoloc.context.collection import Collection, favouring_first
from geoloc.context.company import Company, CompanyOptions
from geoloc.context.transition import AIRLINER_KM_PER_MINUTE, SLACK_KM
from geoloc.geo.distance import haversine_km
from geoloc.photos.times import CLOCK_STARTS, RESETS
from geoloc.ranking.candidates import padded

ORDER = ["uri", "taken_at", "taken_utc_offset", "camera", "camera_serial", "owner"]
COLUMNS = [
    "id",
    "status",
    "lat",
    "lon",
    *(f"candidates.list.element.{name}" for name in ("score", "lat", "lon")),
    *ORDER,
]
COLUMNS += ["gps_error_m", "because", "gps_doubt"]
"""Of RESULT, that are looked at."""

DECIDING = [
    "id",
    *ORDER,
    "known_lat",
    "known_lon",
    "gps_error_m",
    "candidates_score",
    "candidates_lat",
    "candidates_lon",
]
"""Of compact rows, what joint answers follow from."""

COARSE_M = 1000
"""A position that may be further off, by its receiver, is what an estimate is to its neighbours, not a known place."""
WAYS = 5
"""That a chain is judged by."""
_MINUTE, _DAY = 60_000, 86_400_000
"""Milliseconds."""
_DCF_NAME = re.compile(r"([A-Z_][A-Z0-9_]{3})(\d{4})\.[^.]+")
"""Design rule for Camera File system: four characters and a number."""


def compact(rows: pa.Table) -> pa.Table:
    """Rows of COLUMNS that are looked at, of which nothing is left but what is needed: of candidates, the first ones' scores and
    places, -inf for none; and whether neighbours had a say when they were written."""
    rows = rows.filter(pc.is_in(rows["status"], pa.array(["located", "uncertain", "kept"])))
    first = pc.list_slice(rows["candidates"].combine_chunks(), 0, CANDIDATES)
    _, fields = padded(first, ["score", "lat", "lon"])
    for name, values in fields.items():
        whole = np.full((rows.num_rows, CANDIDATES), -np.inf)
        whole[:, : values.shape[1]] = values
        flat = pa.array(whole.ravel(), pa.float32() if name == "score" else pa.float64())
        rows = rows.append_column(f"candidates_{name}", pa.FixedSizeListArray.from_arrays(flat, CANDIDATES))
    told = pc.or_(rows["because"].is_valid(), rows["gps_doubt"].is_valid())
    kept = pc.equal(rows["status"], "kept")
    for axis in ("lat", "lon"):
        rows = rows.append_column(f"known_{axis}", pc.if_else(kept, rows[axis], None))
    return rows.drop_columns(["status", "lat", "lon", "candidates", "because", "gps_doubt"]).append_column("told", told)


def timed(rows: pa.Table, scale: float, company: CompanyOptions | None = None) -> tuple[np.ndarray, Collection]:
    """Of compact rows, those (m,) of photos that have a time, and they as a collection; ``scale`` of their candidates' scores as in
    geoloc.estimate.confidence."""
    used, chain, position, utc = by_time(rows)
    rows = rows.take(pa.array(used))
    known = _known(rows)
    for finer in (_codes(cameras(rows)), np.arange(len(chain))):
        several = of_several_people(chain, position, known)
        chain = np.unique(np.where(several, chain.max(initial=0) + 1 + finer, chain), return_inverse=True)[1]
    position, told = (company or CompanyOptions()).by_told_clock(rows, position, _minutes(rows))
    folder = _codes(folders(rows))
    if "household" in rows.column_names:
        both = np.stack([folder, np.unique(rows["household"].to_numpy(), return_inverse=True)[1]])
        folder = np.unique(both, axis=1, return_inverse=True)[1].ravel()
    met = Company(folder, utc | told, told, company.tracks if company else ())
    return used, _collection(rows, chain, position, True, known, scale, met)


def by_time(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The rows of ORDER that have a time, and the chain and the minute of each, and whether that is UTC's, all (m,).

    A chain is all photos of one serial number, or of one owner's model, or else of one model in one folder, and in folders beside
    it that were filled before or after it, as by somebody who files by date; in one that was filled at the same time they may
    be somebody else's. Their clock is UTC where it is told for all of them, else local.
    """
    used = np.flatnonzero(has_time(rows))
    if not len(used):
        return used, np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool)
    rows = rows.take(pa.array(used))
    chain = _filed_by_date(rows, _codes(cameras(rows)), _minutes(rows))
    offset = rows["taken_utc_offset"].cast(pa.float64()).to_numpy()
    return used, chain, *in_one_clock(chain, _minutes(rows), offset)


def _filed_by_date(rows: pa.Table, chain: np.ndarray, minutes: np.ndarray) -> np.ndarray:
    """(n,) with chains as one that are of a model without serial number and owner, in folders of one folder, one after the other."""
    nameless = pc.and_(rows["camera_serial"].is_null(), pc.and_(rows["owner"].is_null(), rows["camera"].is_valid()))
    which = np.flatnonzero(nameless.to_numpy())
    if not len(which):
        return chain
    rows = rows.select(["uri", "camera", "camera_serial", "owner"]).take(pa.array(which))
    beside = pc.replace_substring_regex(folders(rows), "[^/]*/$", "")
    model = _codes(pc.binary_join_element_wise(beside, rows["camera"], "|"))
    chains, at = np.unique(chain[which], return_inverse=True)
    first, last = np.full(len(chains), np.inf), np.full(len(chains), -np.inf)
    np.minimum.at(first, at, minutes[which])
    np.maximum.at(last, at, minutes[which])
    model_of = np.zeros(len(chains), np.int64)
    model_of[at] = model
    ends: dict[int, list[list[float]]] = {}  # of each model: when what is taken for one camera's ends, and its chain
    found = chains.copy()
    for one in np.lexsort((first, model_of)).tolist():
        lanes = ends.setdefault(int(model_of[one]), [])
        free = max((lane for lane in lanes if lane[0] < first[one]), default=None)
        if free is None:
            lanes.append([last[one], chains[one]])
        else:
            free[0], found[one] = last[one], free[1]
    out = chain.copy()
    out[which] = found[at]
    return out


def cameras(rows: pa.Table) -> pa.ChunkedArray:
    """Of rows of ORDER, which camera each photo is of: the chains of those that have a time."""
    camera, owner, serial = (rows[name].fill_null("") for name in ("camera", "owner", "camera_serial"))
    folder = folders(rows)
    body, owned, other = (
        pc.binary_join_element_wise(kind, camera, who, "|")
        for kind, who in (("body", serial), ("owner", owner), ("folder", folder))
    )
    return pc.if_else(rows["camera_serial"].is_valid(), body, pc.if_else(rows["owner"].is_valid(), owned, other))


def folders(rows: pa.Table) -> pa.ChunkedArray:
    return pc.replace_substring_regex(rows["uri"], "[^/]*$", "")


def numbered(rows: pa.Table, scale: float) -> tuple[np.ndarray, Collection]:
    """Likewise of photos without time that are called as cameras call their files: DSC_0412.JPG. A chain is a folder."""
    names = rows["uri"].to_pylist()
    found = [_DCF_NAME.fullmatch(name.rsplit("/", 1)[-1]) for name in names]
    is_numbered = np.array([match is not None for match in found], bool)
    used = np.flatnonzero(is_numbered & ~has_time(rows))
    rows = rows.take(pa.array(used))
    series = [f"{names[row].rpartition('/')[0]}/{found[row][1]}" for row in used]
    number = np.array([float(found[row][2]) for row in used])
    chain = _codes(pa.chunked_array([pa.array(series, pa.string())]))
    return used, _collection(rows, chain, number, False, _known(rows), scale, None)


def _minutes(rows: pa.Table) -> np.ndarray:
    return rows["taken_at"].cast(pa.int64()).to_numpy() / _MINUTE


def _known(rows: pa.Table) -> np.ndarray:
    return np.stack([rows[f"known_{axis}"].to_numpy() for axis in ("lat", "lon")], axis=1).reshape(-1, 2)


def has_time(rows: pa.Table) -> np.ndarray:
    """(n,) and not what a clock shows that was never set (geoloc.photos.times.capture_time)."""
    milliseconds = rows["taken_at"].cast(pa.int64()).fill_null(0).to_numpy()
    starts, resets = (np.array(times, "datetime64[ms]").astype(np.int64) for times in (CLOCK_STARTS, RESETS))
    unset = np.isin(milliseconds // _DAY, starts // _DAY) | np.isin(milliseconds // _MINUTE, resets // _MINUTE)
    return rows["taken_at"].is_valid().to_numpy() & ~unset


def _codes(keys: pa.ChunkedArray) -> np.ndarray:
    return keys.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _collection(
    rows: pa.Table,
    chain: np.ndarray,
    position: np.ndarray,
    is_timed: bool,
    known: np.ndarray,
    scale: float,
    company: Company | None,
) -> Collection:
    score, lat, lon = (
        rows[f"candidates_{name}"].combine_chunks().flatten().to_numpy().reshape(-1, CANDIDATES)
        for name in ("score", "lat", "lon")
    )
    most = max(1, int(np.flatnonzero(np.isfinite(score).any(0)).max(initial=0)) + 1)
    candidates = np.stack([lat, lon], axis=-1)[:, :most].astype(np.float64)
    scores = scale * score[:, :most].astype(np.float64)
    some = np.isfinite(scores).any(1)
    shares = np.zeros(scores.shape)
    shares[some] = np.exp(scores[some] - scores[some].max(1, keepdims=True, initial=-np.inf))
    shares = favouring_first(shares / np.maximum(shares.sum(1, keepdims=True), 1e-12))
    candidates[~np.isfinite(scores)] = np.nan
    coarse = (rows["gps_error_m"].fill_null(0).to_numpy() > COARSE_M) & ~np.isnan(known[:, 0])
    candidates[coarse], shares[coarse] = np.nan, 0
    candidates[coarse, 0], shares[coarse, 0] = known[coarse], 1
    known = np.where(coarse[:, None], np.nan, known)
    return Collection(chain, position, is_timed, known, candidates, shares, company)


def of_several_people(chain: np.ndarray, minutes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) whether a photo's chain cannot be one person's: of its photos' own positions that follow each other within a day, at
    least WAYS, one in five is further from the one before than an airliner flies."""
    fixes = np.flatnonzero(~np.isnan(known[:, 0]))
    fixes = fixes[np.lexsort((minutes[fixes], chain[fixes]))]
    gap = np.diff(minutes[fixes])
    close = (np.diff(chain[fixes]) == 0) & (gap <= 1440)
    before, after = known[fixes][:-1][close], known[fixes][1:][close]
    impossible = haversine_km(*before.T, *after.T) > SLACK_KM + AIRLINER_KM_PER_MINUTE * gap[close]
    of = chain[fixes][1:][close]
    size = int(chain.max(initial=0)) + 1
    ways, wrong = np.bincount(of, minlength=size), np.bincount(of, impossible, minlength=size)
    return ((ways >= WAYS) & (wrong > np.maximum(2, 0.2 * ways)))[chain]  # one wrong position makes two such ways
