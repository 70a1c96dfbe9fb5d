"""What a light ranker is worth over plain retrieval, what it costs, and what several indexes find that one does not.

python -m tests.bench.bench_light toy [FOLDER]
python -m tests.bench.bench_light cost

``toy``: 900 photographers of a planet of 300 cities, some of which are seen more often than others; each takes ten photos in two
cities. A third of them is asked about, half and a sixth are in two indexes, encoder lite.
"""

import csv
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch

from geoloc.candidates.pool import Hits, Pooling, pool, region_votes
from geoloc.ranking.evidence import evidence, feature_names
from geoloc.ranking.light import LightRanker
from geoloc.toy.planet import Planet

CITIES, PHOTOGRAPHERS, PHOTOS = 300, 900, 10
PLANET = Planet(cities=CITIES, countries=37)
SHARES = {"asked": 1 / 3, "first": 1 / 2, "second": 1 / 6}


def toy(folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(folder or made)
        if not (root / "asked.csv").exists():
            write_photos(root)
        for name in SHARES:
            if not (root / f"index-{name}" / "index.json").exists():
                job("build_index.py", root / f"{name}.csv", root / f"index-{name}", "--encoder", "lite")
        for names in (["first"], ["second"], ["first", "second"]):
            out = root / f"light-{'-'.join(names)}"
            indexes = [str(root / f"index-{name}") for name in names]
            ablations = ["--ablations"] if len(names) > 1 else []
            job("train_light.py", root / "index-asked", out, "--index", *indexes, *ablations)
            print(f"\nIndexes: {', '.join(names)}\n{(out / 'table.md').read_text()}")
            for row in csv.DictReader((out / "candidates.csv").open()):
                if row["run"] == "light ranker":
                    print({name: value for name, value in row.items() if name.startswith(("recall", "oracle"))} or row)
        print((root / "light-first-second" / "differences.csv").read_text())


def write_photos(root: Path) -> None:
    """The photos, and a table of each share of the photographers with who took them."""
    root.mkdir(parents=True, exist_ok=True)
    with Pool() as processes:
        rows = processes.map(_photographer, [(root, number) for number in range(PHOTOGRAPHERS)], chunksize=8)
    ends = (np.cumsum(list(SHARES.values())) * PHOTOGRAPHERS).round().astype(int)
    for name, start, end in zip(SHARES, [0, *ends], ends, strict=False):
        with (root / f"{name}.csv").open("w", newline="") as file:
            head = ("uri", "lat", "lon", "city", "region", "country", "author")
            csv.writer(file).writerows([head, *(row for taken in rows[start:end] for row in taken)])


def _photographer(given: tuple[Path, int]) -> list[tuple]:
    root, number = given
    random = np.random.default_rng([11, number])
    popularity = 1 / np.arange(1, CITIES + 1) ** 0.7
    cities = random.choice(CITIES, 2, p=popularity / popularity.sum())
    rows = []
    for photo in range(PHOTOS):
        city = int(cities[photo % 2])
        lat, lon = PLANET.place(city, random)
        uri = root / f"{number:04d}-{photo}.jpg"
        PLANET.photo(city, lat, lon, random).save(uri, quality=90)
        there = PLANET.cities[city]
        country = PLANET.country_names[there.country]
        rows.append((uri, lat, lon, there.name, country, PLANET.continent_names[there.continent], f"p{number}"))
    return rows


def cost(photos: int = 256, rounds: int = 5) -> None:
    """On one core: lists that half lie round a few cities, and half anywhere."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    for kinds in (["photos"], ["gallery", "photos", "photos"]):
        lists = [_made_up(kind, photos, 500, random) for kind in kinds]
        ranker, pooling = LightRanker(len(feature_names(kinds))).eval(), Pooling()
        taken: dict[str, list[float]] = {name: [] for name in ("votes", "places", "evidence", "network")}
        for _ in range(rounds):
            for hits in lists:
                hits.__dict__.pop("at", None)  # which is worked out once a batch
            at = [time.perf_counter()]
            votes = region_votes(lists, pooling, 3_800)
            at.append(time.perf_counter())
            found = pool(lists, votes, pooling, 20)
            at.append(time.perf_counter())
            features = evidence(lists, found, votes)
            at.append(time.perf_counter())
            ranker.score(features)
            at.append(time.perf_counter())
            for name, seconds in zip(taken, np.diff(at), strict=True):
                taken[name].append(1e6 * seconds / photos)
        medians = {name: float(np.median(values)) for name, values in taken.items()}
        parts = ", ".join(f"{name} {value:.0f}" for name, value in medians.items())
        print(f"{len(kinds)} lists of 500, 20 places: {sum(medians.values()):.0f} µs a photo ({parts})")


def _made_up(kind: str, photos: int, depth: int, random: np.random.Generator) -> Hits:
    near = random.random((photos, depth, 1)) < 0.5
    off = random.normal(0, 1, (photos, depth, 2)) * np.where(near, 0.05, 20)
    similarity = -np.sort(-random.random((photos, depth)).astype(np.float32) * 0.3, axis=1)
    row, region = random.integers(0, 1_000_000, (photos, depth)), random.integers(0, 3_800, (photos, depth))
    return Hits(kind, row, similarity, np.clip(45 + off[..., 0], -89, 89), 10 + off[..., 1], region)


def job(name: str, *arguments: object) -> None:
    subprocess.run([sys.executable, f"jobs/{name}", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    {"toy": toy, "cost": cost}[sys.argv[1]](*sys.argv[2:])
