"""What photos make of each other: accuracy beside copying the nearest known place, calibration, and photos a second.

python -m tests.bench.bench_context accuracy im2gps3k_dev.csv [system …]
python -m tests.bench.bench_context speed [photos]

``accuracy`` wants a table with album, sequence, lat, lon and <system>_lat, <system>_lon; what geoloc ships was learned from
im2gps3k_dev.csv's albums, a few numbers for all of them; ``learn`` beside says how well that holds over albums left out.
"""

import resource
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv

from geoloc.context.collection import Collection, alone, hidden
from geoloc.context.locating import locate_collection
from geoloc.geo.distance import THRESHOLDS_KM, haversine_km

KNOWN = (0.0, 0.02, 0.05, 0.1, 0.5)
DRAWS = 5


def accuracy(path: str, *systems: str) -> None:
    table = pa.csv.read_csv(path)
    chain = table["album"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    truth = np.stack([table["lat"].to_numpy(), table["lon"].to_numpy()], axis=1)
    every = [name.removesuffix("_lat") for name in table.column_names if name.endswith("_lat")]
    for one in systems or [*every, "+".join(every)]:
        estimates = np.stack(
            [
                np.stack([table[f"{name}_{axis}"].to_numpy() for axis in ("lat", "lon")], axis=1)
                for name in one.split("+")
            ],
            axis=1,
        )
        shares = (~np.isnan(estimates[..., 0])).astype(float)
        shares /= np.maximum(shares.sum(1, keepdims=True), 1)
        whole = Collection(chain, table["sequence"].to_numpy().astype(float), False, truth, estimates, shares)
        print(
            f"\n{one}: % within {'/'.join(map(str, THRESHOLDS_KM))} km, median km, of photos whose place is not known"
        )
        for share in KNOWN:
            draws = [_draw(whole, share, seed) for seed in range(DRAWS if share else 1)]
            for name in ("alone", "nearest", "together"):
                print(f"{share:4.0%} known  {name:9}", *np.mean([draw[name] for draw in draws], axis=0).round(1))
            print(f"{share:4.0%} known  within their radius {np.mean([draw['covered'] for draw in draws]):.1%}")


def _draw(whole: Collection, share: float, seed: int) -> dict[str, object]:
    known = np.random.default_rng(seed).random(len(whole)) < share
    rows = np.flatnonzero(~known)
    given = hidden(whole, rows)
    given = replace(given, shares=np.where(known[:, None], 0, given.shares))  # nobody asks a system about them
    given = replace(given, candidates=np.where(known[:, None, None], np.nan, given.candidates))
    together = locate_collection(given)
    joint = np.stack([together.lat, together.lon], axis=1)
    km = _km(joint[rows], whole.known[rows])
    return {
        "alone": _figures(_km(alone(whole)[rows], whole.known[rows])),
        "nearest": _figures(_km(_nearest(given)[rows], whole.known[rows])),
        "together": _figures(km),
        "covered": float(np.mean(km <= together.radius_km[rows])),
    }


def _nearest(given: Collection) -> np.ndarray:
    """Each photo's nearest known place in its chain, or its own estimate where there is none."""
    out = alone(given).copy()
    for chain in np.unique(given.chain):
        rows = np.flatnonzero(given.chain == chain)
        fixes = rows[~np.isnan(given.known[rows, 0])]
        if len(fixes):
            near = np.abs(given.position[rows][:, None] - given.position[fixes]).argmin(1)
            out[rows] = given.known[fixes[near]]
    return out


def _km(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.nan_to_num(haversine_km(*a.T, *b.T), nan=20_015)


def _figures(km: np.ndarray) -> np.ndarray:
    return np.array([*(100 * np.mean(km < threshold) for threshold in THRESHOLDS_KM), np.median(km)])


def speed(photos: int = 200_000) -> None:
    for name, chain in (("chains of all lengths", _chains(photos)), ("one chain", np.zeros(photos, np.int64))):
        made_up = _made_up(chain)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        locate_collection(made_up)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{name}: {photos:,} photos, {photos / seconds:,.0f} a second; peak {peak >> 10:,} MB, {(peak - before) >> 10:,} more "
            "than before"
        )


def _chains(photos: int) -> np.ndarray:
    lengths = np.random.default_rng(0).pareto(1.0, photos).astype(int) + 1
    return np.repeat(np.arange(photos), lengths)[:photos]


def _made_up(chain: np.ndarray) -> Collection:
    """Wanderers, with five candidates a photo, and a place known of one in twenty."""
    random, n = np.random.default_rng(1), len(chain)
    place = np.stack([40 * np.sin(np.arange(n) / 9e3), 170 * np.sin(np.arange(n) / 7e3)], axis=1)
    off = random.normal(0, 1, (n, 5, 2)) * random.choice([0.01, 1, 15], (n, 5, 1))
    known = np.where(random.random((n, 1)) < 0.05, place, np.nan)
    return Collection(
        chain, np.cumsum(random.exponential(30, n)), True, known, place[:, None] + off, np.full((n, 5), 0.2)
    )


if __name__ == "__main__":
    {"accuracy": accuracy, "speed": lambda *sizes: speed(*map(int, sizes))}[sys.argv[1]](*sys.argv[2:])
