"""Cell classifiers and GeoSURGE's embeddings on a folder's photos, by author, and what partitions cost.

python -m tests.bench.bench_geocells [partitions] [PHOTOS]

partitions: seven of 5,000,000 places.
PHOTOS: a folder with manifest.csv (path, lat, lon, author). In five folds, no author in two of them, cells are learned from four with
vectors of encoder ``lite`` and photos of the fifth located; the most similar of the four's photos beside it. Intervals are 95 %, of
authors drawn anew.
"""

import csv
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from geoloc.encoders.config import lite
from geoloc.encoders.geoclip import geoclip_gallery
from geoloc.encoders.image import ImageEncoder
from geoloc.geo.distance import geodesic_km
from geoloc.geo.partition import GEOSURGE, partition
from geoloc.geocells.division import Division
from geoloc.geocells.inference import posterior
from geoloc.geocells.methods import METHODS, GeocellOptions
from geoloc.geocells.model import Geocells
from geoloc.index.search import exact_search
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader, pixel_array
from geoloc.schema import MANIFEST
from geoloc.training.cell_steps import CellExamples, CellTrainee
from geoloc.training.options import GeocellTrainingOptions

THRESHOLDS_KM = (25, 200, 750, 2500)
FOLDS, DRAWS = 5, 2000
SMALL = {1: (40,), 3: (160, 80, 40), 5: (160, 120, 80, 60, 40), 7: (320, 160, 120, 80, 60, 40, 25)}
"""Photos of a cell at most, by the number of partitions: for a thousand photos, not for millions."""
TRAINING = GeocellTrainingOptions(epochs=40, batch_size=128, lr=1e-3, gamma=0.95, validation_share=0.05)


def partitions() -> None:
    lat, lon = geoclip_gallery()
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(lat), 5_000_000)
    lat = np.clip(lat[chosen] + random.normal(0, 0.05, len(chosen)), -90, 90)
    lon = (lon[chosen] + random.normal(0, 0.05, len(chosen)) + 180) % 360 - 180
    start = time.perf_counter()
    found = partition(lat, lon, GEOSURGE)
    spent = time.perf_counter() - start
    sizes = ", ".join(f"{len(cells):,}" for cells in found.partitions)
    print(
        f"{len(lat):,} places in {spent:.1f} s, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB at the peak: {sizes} cells",
        flush=True,
    )


def photos(folder: Path) -> None:
    vectors, lat, lon, author = encoded(folder)
    fold = np.random.default_rng(0).permutation(author.max() + 1)[author] % FOLDS
    variants: dict[str, GeocellOptions | None] = {"most similar photo": None}
    variants |= {name: replace(one, most=SMALL[len(one.most)], fewest=3) for name, one in METHODS.items()}
    cells = variants["geosurge"]
    variants |= {f"geosurge, {name}": replace(cells, negatives=name) for name in ("batch", "all-cells")}
    variants["geosurge, classifier"] = replace(cells, head="classifier")
    variants |= {f"geosurge, {n} partitions": replace(cells, most=SMALL[n]) for n in (1, 3, 5)}
    print(
        f"| {len(lat):,} photos of {author.max() + 1} authors, below | "
        + " | ".join(f"{t} km" for t in THRESHOLDS_KM)
        + " |"
    )
    for name, options in variants.items():
        km = np.empty(len(lat))
        for number in range(FOLDS):
            known, asked = fold != number, fold == number
            at = located(options, vectors[known], lat[known], lon[known], vectors[asked])
            km[asked] = geodesic_km(lat[asked], lon[asked], *at)
        print(f"| {name} | " + " | ".join(share(km < limit, author) for limit in THRESHOLDS_KM) + " |", flush=True)


def located(
    options: GeocellOptions | None, vectors: np.ndarray, lat: np.ndarray, lon: np.ndarray, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if options is None:
        nearest = exact_search(vectors, asked, 1)[1][:, 0]
        return lat[nearest], lon[nearest]
    torch.manual_seed(0)
    division = Division.of(lat, lon, options)
    known = CellExamples(vectors, lat, lon, division.cells(lat, lon), division)
    model = Geocells(vectors.shape[1], [len(one) for one in division.partitions], options.head, options.width)
    trainee = CellTrainee(model, options, TRAINING, known, torch.device("cpu"))
    for step in range(trainee.steps):
        trainee.step(step)
        if trainee.finished:
            break
    model.load_state_dict(trainee.best)
    with torch.inference_mode():
        scores = posterior(
            model, model.photos(torch.from_numpy(asked)), torch.from_numpy(division.lineage), options.combine
        )
    found = scores.argmax(dim=1).numpy()
    return division.lat[found], division.lon[found]


def share(right: np.ndarray, author: np.ndarray) -> str:
    """Per cent, with its interval."""
    random, count = np.random.default_rng(0), author.max() + 1
    of_author, hits = np.bincount(author), np.bincount(author, right)
    drawn = random.integers(0, count, (DRAWS, count))
    low, high = np.percentile(hits[drawn].sum(axis=1) / of_author[drawn].sum(axis=1), [2.5, 97.5])
    return f"{100 * right.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"


def encoded(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, places and numbers of authors; who has none is one by himself."""
    with (folder / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lat"]]
    encoder = ImageEncoder(lite(), threads=2)
    loader = PhotoLoader(LoadOptions(DecodeOptions(encoder.view)))
    listed = [{"id": n, "uri": str(folder / row["path"])} for n, row in enumerate(rows)]
    vectors, ids = [], []
    for batch in loader.load(pa.Table.from_pylist(listed, MANIFEST)):
        pixels, found = pixel_array(batch, encoder.view.size)
        if len(found):
            vectors.append(encoder.encode(pixels))
            ids += batch["id"].take(pa.array(found)).to_pylist()
    rows = [rows[n] for n in ids]
    lat, lon = (np.array([float(row[axis]) for row in rows]) for axis in ("lat", "lon"))
    names = [row["author"] or row["path"] for row in rows]
    return np.concatenate(vectors), lat, lon, np.unique(names, return_inverse=True)[1]


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["partitions"]:
        partitions() if wanted == "partitions" else photos(Path(wanted))
