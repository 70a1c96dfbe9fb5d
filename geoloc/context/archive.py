"""The photos of an archive as collections: by the camera, in the order of its clock, or of its files' numbers."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.context.chains import CANDIDATES, in_one_clock
from geoloc.context.collection import Collection, favouring_first
from geoloc.context.transition import AIRLINER_KM_PER_MINUTE, SLACK_KM
from geoloc.geo.distance import haversine_km
from geoloc.photos.times import CLOCK_STARTS, RESETS
from geoloc.ranking.candidates import padded

ORDER = ["uri", "status", "taken_at", "taken_utc_offset", "camera", "camera_serial", "owner"]
COLUMNS = ["id", "lat", "lon", "candidates", *ORDER]
"""Of RESULT, that are looked at."""

WAYS = 5
"""That a chain is judged by."""
_MINUTE, _DAY = 60_000, 86_400_000
"""Milliseconds."""
_DCF_NAME = re.compile(r"([A-Z_][A-Z0-9_]{3})(\d{4})\.[^.]+")
"""Design rule for Camera File system: four characters and a number."""


def timed(rows: pa.Table, scale: float) -> tuple[np.ndarray, Collection]:
    """The rows (m,) of photos that have a time, and they as a collection; ``scale`` of their candidates' scores as
    in geoloc.estimate.confidence."""
    used, chain, position = by_time(rows)
    return used, _collection(rows.take(pa.array(used)), chain, position, True, scale)


def by_time(rows: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of ORDER that have a time, and the chain and the minute of each, all (m,).

    A chain is all photos of one serial number, or of one owner's model, or else of one model in one folder: another
    folder's may be somebody else's. Their clock is UTC where it is told for all of them, else local.
    """
    used = np.flatnonzero(_looked_at(rows) & _has_time(rows))
    if not len(used):
        return used, np.zeros(0, np.int64), np.zeros(0)
    rows = rows.take(pa.array(used))
    camera, owner, serial = (rows[name].fill_null("") for name in ("camera", "owner", "camera_serial"))
    folder = pc.replace_substring_regex(rows["uri"], "[^/]*$", "")
    body, owned, other = (
        pc.binary_join_element_wise(kind, camera, who, "|")
        for kind, who in (("body", serial), ("owner", owner), ("folder", folder))
    )
    chain = _codes(
        pc.if_else(rows["camera_serial"].is_valid(), body, pc.if_else(rows["owner"].is_valid(), owned, other))
    )
    minutes = rows["taken_at"].cast(pa.int64()).to_numpy() / _MINUTE
    return used, chain, in_one_clock(chain, minutes, rows["taken_utc_offset"].cast(pa.float64()).to_numpy())


def numbered(rows: pa.Table, scale: float) -> tuple[np.ndarray, Collection]:
    """Likewise of photos without time that are called as cameras call their files: DSC_0412.JPG. A chain is a folder."""
    names = rows["uri"].to_pylist()
    found = [_DCF_NAME.fullmatch(name.rsplit("/", 1)[-1]) for name in names]
    is_numbered = np.array([match is not None for match in found], bool)
    used = np.flatnonzero(_looked_at(rows) & is_numbered & ~_has_time(rows))
    rows = rows.take(pa.array(used))
    series = [f"{names[row].rpartition('/')[0]}/{found[row][1]}" for row in used]
    number = np.array([float(found[row][2]) for row in used])
    return used, _collection(rows, _codes(pa.chunked_array([pa.array(series, pa.string())])), number, False, scale)


def _has_time(rows: pa.Table) -> np.ndarray:
    """(n,) and not what a clock shows that was never set (geoloc.photos.times.capture_time)."""
    milliseconds = rows["taken_at"].cast(pa.int64()).fill_null(0).to_numpy()
    starts, resets = (np.array(times, "datetime64[ms]").astype(np.int64) for times in (CLOCK_STARTS, RESETS))
    unset = np.isin(milliseconds // _DAY, starts // _DAY) | np.isin(milliseconds // _MINUTE, resets // _MINUTE)
    return rows["taken_at"].is_valid().to_numpy() & ~unset


def _looked_at(rows: pa.Table) -> np.ndarray:
    return pc.is_in(rows["status"], pa.array(["located", "uncertain", "kept"])).to_numpy()


def _codes(keys: pa.ChunkedArray) -> np.ndarray:
    return keys.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _collection(rows: pa.Table, chain: np.ndarray, position: np.ndarray, is_timed: bool, scale: float) -> Collection:
    kept = pc.equal(rows["status"], "kept").to_numpy()
    place = np.stack([rows[name].to_numpy() for name in ("lat", "lon")], axis=1).reshape(-1, 2)
    first = pc.list_slice(rows["candidates"].combine_chunks(), 0, CANDIDATES)
    _, fields = padded(first, ["score", "lat", "lon"])
    if not fields["lat"].shape[1]:  # none has any
        fields = dict.fromkeys(fields, np.full((len(chain), 1), -np.inf))
    candidates = np.stack([fields["lat"], fields["lon"]], axis=-1)
    scores = scale * fields["score"].astype(np.float64)
    some = np.isfinite(scores).any(1)
    shares = np.zeros(scores.shape)
    shares[some] = np.exp(scores[some] - scores[some].max(1, keepdims=True, initial=-np.inf))
    shares = favouring_first(shares / np.maximum(shares.sum(1, keepdims=True), 1e-12))
    candidates[~np.isfinite(scores)] = np.nan
    known = np.where(kept[:, None], place, np.nan)
    if is_timed:
        several = of_several_people(chain, position, known)
        chain = np.where(several, chain.max(initial=0) + 1 + np.arange(len(chain)), chain)
    return Collection(chain, position, is_timed, known, candidates, shares)


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
