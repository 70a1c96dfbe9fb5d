"""What photos make of each other: accuracy beside copying the nearest known place, calibration, and photos a second.

python -m tests.bench.bench_context accuracy im2gps3k_dev.csv [system …]
python -m tests.bench.bench_context speed [photos]
python -m tests.bench.bench_context stage [photos] [photos at once]

``accuracy`` wants a table with album, sequence, lat, lon and <system>_lat, <system>_lon; what geoloc ships was learned from
im2gps3k_dev.csv's albums, a few numbers for all of them; ``learn`` beside says how well that holds over albums left out.
"""

import resource
import sys
import tempfile
import threading
import time
from dataclasses import replace

import numpy as np
import psutil
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


def stage(photos: int = 2_000_000, at_once: int = 500_000) -> None:
    """The archive job's, from files to files, on a Ray cluster of this machine."""
    import ray

    from geoloc.context.company import CompanyOptions
    from geoloc.estimate.confidence import Confidence
    from geoloc.pipeline import context
    from geoloc.results.parts import Parts
    from geoloc.storage import Folder

    ray.init("local", log_to_driver=False)
    context.AT_ONCE = at_once
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Folder(folder) / "geotags")
        for number, start in enumerate(range(0, photos, PART)):
            parts.add(_part(start, min(PART, photos - start), number))
        most: dict[str, int] = {}
        threading.Thread(target=_watch, args=(most,), daemon=True).start()
        for name in ("all", "again", "one household more"):
            if name.startswith("one"):
                parts.add(_part(photos, 200, 0))
                photos += 200
            start = time.perf_counter()
            work = context.JointStage(
                parts, Confidence(5.0), CompanyOptions(), context.Memory(Folder(folder)), photos, {}
            )
            written = work.done(parts.names())
            seconds = time.perf_counter() - start
            print(
                f"{name}: {photos:,} photos in {seconds:.0f} s; {written} of {len(parts.names())} files written; peak MB {most}"
            )


PART = 50_000


def _part(start: int, count: int, seed: int) -> pa.Table:
    """Families of 200 photos each, of two cameras, with two candidates a photo."""
    from geoloc.schema import CANDIDATE, RESULT

    random, ids = np.random.default_rng(seed), np.arange(start, start + count)
    family, camera = ids // 200, ids % 2
    lat = 20 + family % 50 + (ids % 200) * 0.01
    kept = ids % 7 == 0
    places = np.stack([lat + random.normal(0, 0.02, count), np.full(count, 10.0)], axis=1).ravel()
    fields = {
        "lat": places,
        "lon": np.tile([2.0, 20.0], count),
        "score": np.tile([0.5, 0.2], count).astype(np.float32),
        "similarity": np.tile([0.5, 0.2], count).astype(np.float32),
        "reference_id": np.tile([1, 2], count),
    }
    structs = pa.StructArray.from_arrays(
        [pa.array(fields[f.name], f.type) if f.name in fields else pa.nulls(2 * count, f.type) for f in CANDIDATE],
        fields=list(CANDIDATE),
    )
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * count + 1, 2), pa.int32()), structs)
    columns = {
        "id": ids,
        "uri": pa.array([f"/f{f}/a/{i}.jpg" for f, i in zip(family, ids, strict=True)]),
        "status": pa.array(np.where(kept, "kept", "located")),
        "lat": lat,
        "lon": np.full(count, 2.0),
        "taken_at": pa.array((1_500_000_000_000 + family * 7_000_000 + (ids % 200) * 600_000), pa.timestamp("ms")),
        "camera": pa.array(np.where(camera, "A", "B")),
        "candidates": lists,
    }
    return pa.table(
        [
            pa.array(columns[f.name], f.type)
            if f.name in columns and not isinstance(columns[f.name], pa.Array)
            else columns.get(f.name, pa.nulls(count, f.type))
            for f in RESULT
        ],
        RESULT,
    )


def _watch(most: dict[str, int]) -> None:
    """The largest driver and task process."""
    me = psutil.Process()
    while True:
        processes = {
            "driver": [me],
            "task": [p for p in me.children(recursive=True) if "ray::" in " ".join(_command(p))],
        }
        for name, several in processes.items():
            sizes = [_private(one) for one in several]
            most[name] = max([most.get(name, 0), *sizes])
        time.sleep(0.3)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _private(process: psutil.Process) -> int:
    """MB, without what is shared."""
    try:
        memory = process.memory_info()
        return (memory.rss - memory.shared) >> 20
    except psutil.Error:
        return 0


if __name__ == "__main__":
    measured = {
        "accuracy": accuracy,
        "speed": lambda *sizes: speed(*map(int, sizes)),
        "stage": lambda *sizes: stage(*map(int, sizes)),
    }
    measured[sys.argv[1]](*sys.argv[2:])
