"""What the ranker learns on cities that it has not seen, and what each part of its prompt and its loss is worth there.

python -m tests.bench.make_toy_base BASE
python -m tests.bench.bench_ranker BASE FOLDER

The toy planet's 300 cities have one reference photo each. The ranker learns from photos of 240 cities and is tried on
photos of the other 60; BASE has seen neither. Ablations as in GeoRanker's Table 2. Writes FOLDER/table.md.
"""

import csv
import json
import subprocess
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from geoloc.toy.planet import Planet

CITIES, HELD_OUT, PHOTOS = 300, 60, 8
TRAINING = ["--max-pixels", "9408", "--lr", "1e-3", "--workers", "1", "--checkpoint-steps", "120"]
ABLATIONS = {
    "whole": [],
    "without second order": ["--first-order-weight", "1"],
    "without negatives": ["--negatives", "0"],
    "without candidate's picture": ["--no-pictures"],
    "without words": ["--no-words"],
}


def main() -> None:
    base, root = Path(sys.argv[1]), Path(sys.argv[2])
    write_photos(root)
    job("build_index.py", root / "references.csv", root / "index", "--encoder", "lite")
    for name in ("learned", "held"):
        job("build_georanking.py", root / f"{name}.csv", root / name, "--index", root / "index", "--recipe", "lite")
    found = {}
    for name, settings in ABLATIONS.items():
        out = root / name.replace(" ", "-").replace("'", "")
        held = ["--validation", root / "held", "--validation-photos", HELD_OUT * PHOTOS]
        job("train_ranker.py", root / "learned", out, "--model", base, *held, *TRAINING, *settings)
        found[name] = json.loads((out / "progress.json").read_text())["validations"]
    (root / "table.md").write_text(table(found))
    print(table(found))


def table(found: dict[str, list[dict]]) -> str:
    last = found["whole"][-1]
    rows = [
        ("chance", last["nearest_first_by_chance"], {}),
        ("as retrieved", last["nearest_first_retrieved"], last["within_km_retrieved"]),
        *((f"ranker, {name}", each[-1]["nearest_first"], each[-1]["within_km"]) for name, each in found.items()),
        ("nearest candidate always", 1.0, last["within_km_at_best"]),
    ]
    thresholds = list(last["within_km"])
    lines = ["| | nearest of 7 first | " + " | ".join(f"{t} km" for t in thresholds) + " |", "|---" * 7 + "|"]
    for name, nearest, within in rows:
        shares = [f"{100 * within[t]:.1f} %" if within else "" for t in thresholds]
        lines.append(f"| {name} | {100 * nearest:.1f} % | " + " | ".join(shares) + " |")
    return "\n".join([f"{last['photos']} photos of {HELD_OUT} held-out cities", "", *lines, ""])


def write_photos(root: Path) -> None:
    jobs = [(root, city, number) for city in range(CITIES) for number in range(1 + PHOTOS)]
    with Pool(2) as pool:
        rows = pool.starmap(_write, jobs, chunksize=50)
    sets = {"references": [], "learned": [], "held": []}
    for (_, city, number), row in zip(jobs, rows, strict=True):
        sets["references" if number == 0 else "held" if city % (CITIES // HELD_OUT) == 0 else "learned"].append(row)
    for name, rows_of_set in sets.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("uri", "lat", "lon", "city", "country"), *rows_of_set])


_PLANET: list[Planet] = []


def _write(root: Path, city: int, number: int) -> tuple:
    if not _PLANET:
        _PLANET.append(Planet(cities=CITIES, countries=37))
    planet = _PLANET[0]
    random = np.random.default_rng([11, city, number])
    lat, lon = planet.place(city, random)
    path = root / "photos" / f"{city:03d}-{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    planet.photo(city, lat, lon, random).save(path, quality=88)
    there = planet.cities[city]
    return path.resolve(), round(lat, 2), round(lon, 2), there.name, planet.country_names[there.country]


def job(*command: object) -> None:
    subprocess.run([sys.executable, f"jobs/{command[0]}", *map(str, command[1:])], check=True)


if __name__ == "__main__":
    main()
