"""The public benchmarks: where they are published, what their files look like, and how to read those that are no table.

Most are tables that geoloc.evaluation.positions reads as they are. The others: the records that OSV-5M's loader keeps
for IM2GPS (``info.json``) and YFCC4K (``info.txt``), and GeoRanker's and G3's retrieval results (``I.npy``).
"""

import json
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from geoloc.errors import UsageError
from geoloc.evaluation.positions import Positions, candidate_lists
from geoloc.evaluation.reading import read_positions
from geoloc.evaluation.recognition import Columns
from geoloc.storage import Folder, S3Options, describe

_PLACES365 = "CSV: IMG_ID, AUTHOR, LAT, LON, S3_Label, S16_Label, S365_Label, Prob_indoor, Prob_natural, Prob_urban"


@dataclass(frozen=True)
class Dataset:
    name: str
    title: str
    photos: int | None
    """In its published list of truth."""
    files: tuple[str, ...]
    """Parts of the names that its files go by."""
    where: str
    """Where it is published, and what to know of it."""
    layout: str

    def missing(self) -> str:
        """What to tell one who does not have it."""
        size = f" ({self.photos:,} photos)" if self.photos else ""
        return f"{self.title}{size}: {self.where}. Layout: {self.layout}"


DATASETS = {
    data.name: data
    for data in (
        Dataset(
            "im2gps",
            "IM2GPS",
            237,
            ("im2gps_places365", "im2gps_test", "im2gps/info.json"),
            "the photos are on the IM2GPS page of Carnegie Mellon University; the list with coordinates came with "
            "TIBHannover/GeoEstimation, which was withdrawn, and is left in copies by GeoRanker's, G3's and GeoCLIP's users",
            f"im2gps_places365.csv, {_PLACES365}; or info.json as OSV-5M's loader has it",
        ),
        Dataset(
            "im2gps3k",
            "IM2GPS3K",
            2_997,
            ("im2gps3k_places365", "im2gps3ktest", "im2gps3k"),
            "photos and list are linked from the READMEs of GeoRanker, G3 and GeoCLIP; 3,000 images, of which 2,997 have "
            "coordinates",
            f"im2gps3k_places365.csv, {_PLACES365}",
        ),
        Dataset(
            "yfcc4k",
            "YFCC4K",
            4_536,
            ("yfcc4k_places365", "yfcc4k"),
            "from YFCC100M, at Carnegie Mellon University (revisiting IM2GPS); the links in the READMEs of G3 and GeoRanker "
            "lead to YFCC26K's 25,600 rows instead",
            f"yfcc4k_places365.csv, {_PLACES365}; or info.txt as OSV-5M's loader has it (tab-separated, id, longitude and "
            "latitude in columns 1, 12 and 13, counted from 0)",
        ),
        Dataset(
            "yfcc26k",
            "YFCC26K",
            25_600,
            ("yfcc25600_places365", "yfcc26k", "yfcc25600"),
            "from YFCC100M; the list came with TIBHannover/GeoEstimation, which was withdrawn",
            f"yfcc25600_places365.csv, {_PLACES365}",
        ),
        Dataset(
            "gws15k",
            "GWS15k",
            None,
            ("gws15k",),
            "never released; its authors share the ids of its Google Street View panoramas privately",
            "CSV: pano_id, lat, lon",
        ),
        Dataset(
            "osv5m",
            "OSV-5M",
            210_122,
            ("osv5m", "osv-5m"),
            "huggingface.co/datasets/osv5m/osv5m (test.csv and images/test)",
            "CSV: id, latitude, longitude, country, region, sub-region, city, …",
        ),
        Dataset(
            "georanking",
            "GeoRanking",
            100_000,
            ("georanking",),
            "linked from GeoRanker's README",
            "Parquet: img_id, gps, ref_gps, ref_img_id, ref_texts",
        ),
    )
}


def recognise(path: str) -> Dataset | None:
    """The benchmark whose file this is, by its name."""
    name = path.lower()
    for data in DATASETS.values():
        if any(re.search(rf"(^|[^a-z0-9]){re.escape(part)}", name) for part in data.files):
            return data
    return None


def find(name: str) -> Dataset:
    """Raises UsageError."""
    if name not in DATASETS:
        raise UsageError(f"--dataset {name}: there is {', '.join(DATASETS)}")
    return DATASETS[name]


def read_truth(path: str, dataset: Dataset | None, columns: Columns, s3: S3Options) -> Positions:
    """The truth, from any layout. Raises UsageError; where there is no such file, with what is known of the data set."""
    if path.endswith("info.json"):
        return _read_records(path, s3, _im2gps_info)
    if path.endswith("info.txt"):
        return _read_records(path, s3, _yfcc4k_info)
    try:
        return read_positions(path, "truth", columns, s3)
    except UsageError as error:
        raise UsageError(f"{error}. {dataset.missing()}" if dataset else str(error)) from error


def _read_records(path: str, s3: S3Options, parse) -> Positions:
    folder, _, name = path.rpartition("/")
    try:
        ids, lat, lon = parse(Folder(folder or ".", s3).read(name).decode("utf-8"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UsageError(f"TRUTH {path}: is not what its name says ({describe(error)})") from error
    return Positions(path, {"id": pa.array(ids, pa.string())}, np.array(lat, np.float64), np.array(lon, np.float64))


def _im2gps_info(text: str) -> tuple[list, list, list]:
    """Photo name to lines, of which the fourth from the end is ``latitude: …`` and the third ``longitude: …``."""
    records = json.loads(text)
    lat = [float(lines[-4].removeprefix("latitude: ")) for lines in records.values()]
    lon = [float(lines[-3].removeprefix("longitude: ")) for lines in records.values()]
    return list(records), lat, lon


def _yfcc4k_info(text: str) -> tuple[list, list, list]:
    rows = [line.split("\t") for line in text.splitlines() if line]
    return [row[1] for row in rows], [float(row[13]) for row in rows], [float(row[12]) for row in rows]


def read_retrieved(path: str, database: str | None, truth: Positions, s3: S3Options) -> Positions:
    """The candidates of G3's and GeoRanker's ``I.npy`` (photos, k), row numbers in the ``database`` of coordinates.

    Rows are in the truth's order. Raises UsageError.
    """
    if database is None:
        raise UsageError(
            f"PREDICTIONS {path}: are row numbers; say of which table with --database (MP16_Pro_filtered.csv)"
        )
    folder, _, name = path.rpartition("/")
    store = Folder(folder or ".", s3)
    try:
        with store.filesystem.open(store.path(name), "rb") as file:
            rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"PREDICTIONS {path}: cannot read it ({describe(error)})") from error
    places = read_positions(database, "truth", s3=s3, option="--database")
    if rows.ndim != 2 or len(rows) != len(truth):
        raise UsageError(
            f"PREDICTIONS {path}: is {rows.shape}, and the truth has {len(truth):,} photos; they go by row"
        )
    if rows.min(initial=0) < 0 or rows.max(initial=0) >= len(places):
        raise UsageError(f"PREDICTIONS {path}: names row {rows.max()}, and --database {database} has {len(places):,}")
    lat, lon = places.lat[rows], places.lon[rows]
    lists = candidate_lists(lat.ravel(), lon.ravel(), np.full(len(rows), rows.shape[1]))
    return Positions(path, truth.ids, lat[:, 0], lon[:, 0], lists=lists)
