"""What G3's alignment is worth on cities it has never seen, and what training it costs against a plain loop.

python -m tests.bench.bench_alignment [FOLDER]

The toy planet's 300 cities are split: 240 to learn from, with 22 photos each; 60 held out, of which 12 photos each are
references and 36 are looked for, among the references of all cities.
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

from geoloc.encoders.alignment import Alignment, alignment_loss
from geoloc.encoders.config import lite
from geoloc.encoders.text import text_encoder
from geoloc.geo.distance import THRESHOLDS_KM, geodesic_km
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.planet import Planet
from geoloc.training.examples import Examples, Order
from geoloc.training.options import TrainingOptions
from geoloc.training.steps import Trainee

CITIES, LEARNED, REFERENCES, QUERIES = 300, 22, 12, 36
TRAINING = ["--epochs", "20", "--lr", "1e-4", "--same-place-km", "25"]
PARTS = ["image", "image+location", "image+text+location"]
PLANET = Planet(cities=CITIES, countries=37)


def main() -> None:
    if len(sys.argv) > 1:
        return measure(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder))


def measure(root: Path) -> None:
    queries = write_photos(root)
    print(f"oracle, which knows the city: {shares(oracle_km(queries))}")
    for name, settings in (("G3's settings", []), (" ".join(TRAINING), TRAINING)):
        trained = root / ("trained-otherwise" if settings else "trained")
        reuse = ["--features", root / "trained"] if settings else []
        job("train_alignment.py", root / "learned.csv", trained, "--encoder", "lite", *reuse, *settings)
        for vectors in ("images", "multimodal"):
            index, out = (root / f"{kind}-{trained.name}-{vectors}" for kind in ("index", "evaluation"))
            job("build_index.py", root / "references.csv", index, "--encoder", trained, "--vectors", vectors)
            locate = [
                "--images",
                root / "query",
                "--index",
                index,
                "--recipes",
                "lite",
                "--encoder",
                trained,
                "--parts",
                *PARTS,
            ]
            job("evaluate.py", root / "query.csv", out, *locate)
            print(f"{name}, {vectors} as references:")
            with (out / "table.csv").open() as file:
                for row in csv.DictReader(file):
                    print(f"  {row['run']:40}", "  ".join(f"{float(row[f'acc_{t}km']):.1f}" for t in THRESHOLDS_KM))
    throughput(Examples.open(Parts(Folder(str(root / "trained")) / "features")))


def write_photos(root: Path) -> list[tuple]:
    """The photos, and three tables of them; returns the rows of those that are looked for, with their city."""
    held_out = range(4, CITIES, 5)
    wanted = [(c, i) for c in range(CITIES) for i in range(REFERENCES + QUERIES if c in held_out else LEARNED)]
    with Pool() as pool:
        rows = pool.starmap(write_photo, [(root, city, number) for city, number in wanted], chunksize=64)
    of = {
        "learned": [row for row in rows if row[0] not in held_out],
        "query": [row for row in rows if row[0] in held_out and row[1] >= REFERENCES],
    }
    looked_for = set(of["query"])
    of["references"] = [row for row in rows if row not in looked_for]
    for name, photos in of.items():
        with (root / f"{name}.csv").open("w", newline="") as file:
            head = ("uri", "lat", "lon", "city", "region", "country")
            csv.writer(file).writerows([head, *(photo[2:] for photo in photos)])
    return of["query"]


def write_photo(root: Path, city: int, number: int) -> tuple:
    random = np.random.default_rng([11, city, number])
    lat, lon = PLANET.place(city, random)
    kind = "query" if city % 5 == 4 and number >= REFERENCES else "reference"
    path = root / kind / f"{city:03d}-{number:03d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    PLANET.photo(city, lat, lon, random).save(path, quality=88)
    place = PLANET.cities[city]
    names = place.name, PLANET.country_names[place.country], PLANET.continent_names[place.continent]
    return city, number, str(path), lat, lon, *names


def oracle_km(queries: list[tuple]) -> np.ndarray:
    """The error of one who knows every query's city, and answers with its middle."""
    middles = np.array([(PLANET.cities[row[0]].lat, PLANET.cities[row[0]].lon) for row in queries])
    places = np.array([row[3:5] for row in queries], float)
    return geodesic_km(*middles.T, *places.T)


def shares(km: np.ndarray) -> str:
    return ", ".join(f"{t} km {100 * (km < t).mean():.1f} %" for t in THRESHOLDS_KM)


def throughput(examples: Examples, steps: int = 40) -> None:
    """The job's own steps against the shortest loop that learns the same, one core, turn by turn."""
    torch.set_num_threads(1)
    options, order = TrainingOptions(), Order(len(examples), 256, seed=0)
    texts = torch.from_numpy(text_encoder(lite()).encode(examples.sentences))
    trainee = Trainee(Alignment(1280, 256), options, examples, texts, order, torch.device("cpu"))
    plain = plain_loop(examples, texts)
    seconds = {"plain": 0.0, "ours": 0.0}
    for step in range(steps):
        for name, work in (("plain", lambda: next(plain)), ("ours", lambda step=step: trainee.step(step))):
            start = time.perf_counter()
            work()
            seconds[name] += time.perf_counter() - start
    ratio = seconds["plain"] / seconds["ours"]
    print(f"training, one core: {256 * steps / seconds['ours']:.0f} photos/s, {ratio:.2f} times a plain loop's")


def plain_loop(examples: Examples, texts: torch.Tensor):
    features, coordinates = torch.from_numpy(np.array(examples.features)), torch.from_numpy(examples.coordinates)
    words = texts[torch.from_numpy(examples.sentence)]
    model, everything = Alignment(1280, 256), torch.ones(256, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5, weight_decay=1e-6)
    while True:
        for rows in torch.randperm(len(features))[: len(features) // 256 * 256].split(256):
            loss = alignment_loss(model, model(features[rows], words[rows], coordinates[rows]), everything).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


def job(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, f"jobs/{script}", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
