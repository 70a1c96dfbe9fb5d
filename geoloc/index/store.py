"""An index folder: the vectors and places of reference photos, or of a gallery of coordinates.

``index.json``        what it is, and the size and checksum of every other file
``vectors.npy``       (rows, dimension) float32, rows of unit length; memory-mapped
``candidates.parquet``  one row a vector: lat, lon, uri, place, author, and where its thumbnail lies
``thumbnails.bin``    JPEGs one after the other; memory-mapped
``ann.faiss``         optional approximate index over the same rows
"""

import fcntl
import functools
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from geoloc.errors import UsageError
from geoloc.geo.distance import EARTH_RADIUS_KM, unit_vectors
from geoloc.schema import PLACE
from geoloc.storage import Folder, cache_folder

FORMAT = 3
THUMBNAILS = "thumbnails.bin"
_RANGE_BYTES, _RANGES_AT_ONCE = 32 << 20, 8
GALLERY_ENCODER = "geoclip-location-encoder"
CANDIDATES = pa.schema(
    {
        "lat": pa.float64(),
        "lon": pa.float64(),
        "uri": pa.string(),  # null in a gallery
        "place": PLACE,
        "author": pa.string(),  # null where nobody knows
        "thumbnail_at": pa.int64(),  # offset in thumbnails.bin; null where there is none
        "thumbnail_size": pa.int32(),
    }
)
EXTENT = "extent_km"
CELLS = CANDIDATES.append(pa.field(EXTENT, pa.float32()))
"""Of cells (geoloc.geocells)."""


@dataclass(frozen=True)
class IndexInfo:
    """``index.json``."""

    kind: str
    """``photos``, ``gallery``, or ``cells`` from train_geocells.py."""
    weights: str
    """Fingerprint of the image encoder whose vectors these are; a gallery's is its location encoder's name."""
    encoder: str
    model: str
    rows: int
    dimension: int
    vectors: str = "images"
    """Of photos: their own, or, ``multimodal``, of photo, words and coordinates."""
    files: dict[str, dict] = field(default_factory=dict)
    """Name to ``{"bytes": …, "blake2b": …}``."""
    ann: dict | None = None
    """Of the approximate index: its kind, its search parameters and its measured recall."""
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Two indexes with the same fingerprint give the same answers."""
        content = {name: entry["blake2b"] for name, entry in self.files.items()}
        return hashlib.blake2b(json.dumps([self.weights, content], sort_keys=True).encode(), digest_size=16).hexdigest()

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


def read_info(folder: Folder) -> IndexInfo:
    """Raises UsageError where the folder holds no index that this version reads."""
    try:
        info = json.loads(folder.read("index.json"))
    except FileNotFoundError as error:
        raise UsageError(f"--index {folder.uri}: no index.json there; make one with jobs/build_index.py") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--index {folder.uri}: cannot read index.json ({error})") from error
    if info.get("format") != FORMAT:
        raise UsageError(f"--index {folder.uri}: format {info.get('format')}, this version reads {FORMAT}; rebuild it")
    return IndexInfo(**info)


class Index:
    """An index on this machine, opened. Vectors and thumbnails are memory-mapped: processes share them."""

    def __init__(self, path: Path, copied_from: Folder | None = None) -> None:
        """``copied_from``: where its thumbnails are, if they have not been copied."""
        self.path, self._copied_from = path, copied_from
        self.info = read_info(Folder(str(path)))
        self.vectors = np.load(path / "vectors.npy", mmap_mode="r")
        table = pq.read_table(path / "candidates.parquet", memory_map=True)
        self.lat, self.lon = table["lat"].to_numpy(), table["lon"].to_numpy()
        self.uri, self.place = table["uri"].combine_chunks(), table["place"].combine_chunks()
        self.extent_km = table[EXTENT].to_numpy() if EXTENT in table.column_names else None
        self._at, self._size = table["thumbnail_at"].combine_chunks(), table["thumbnail_size"].combine_chunks()

    @property
    def rows(self) -> int:
        return self.info.rows

    @functools.cached_property
    def author(self) -> pa.Array:
        """(rows,) strings, null where nobody knows: read where it is asked for."""
        return pq.read_table(self.path / "candidates.parquet", columns=["author"])["author"].combine_chunks()

    def nearest(self, lat: float, lon: float, within_km: float) -> int | None:
        """The row of the reference that is nearest to coordinates; None where none is so near."""
        chord, row = self._tree.query(unit_vectors(np.array([lat]), np.array([lon]))[0])
        return int(row) if 2 * EARTH_RADIUS_KM * np.arcsin(min(chord / 2, 1)) <= within_km else None

    @functools.cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(unit_vectors(self.lat, self.lon))

    def thumbnail(self, row: int) -> bytes | None:
        """The reference photo's JPEG (``--picture-px``)."""
        at = self._at[row].as_py()
        if at is None:
            return None
        end = at + self._size[row].as_py()
        if self._copied_from and not (self.path / THUMBNAILS).exists():
            return self._copied_from.filesystem.cat_file(self._copied_from.path(THUMBNAILS), start=at, end=end)
        return self._thumbnails[at:end]

    @functools.cached_property
    def _thumbnails(self) -> mmap.mmap:
        with (self.path / THUMBNAILS).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_index(folder: Folder, thumbnails: bool = False) -> Index:
    """As ``local_copy``; thumbnails that have not been copied are fetched one by one."""
    return Index(local_copy(folder, thumbnails), None if folder.is_local else folder)


def local_copy(folder: Folder, thumbnails: bool = False) -> Path:
    """Where the index is on this machine: a bucket's is copied once a node, and its thumbnails, which are most of it, where they
    are asked for; a local one is used as it is.

    Checksums are compared on copying. Raises UsageError naming the file that is damaged.
    """
    info = read_info(folder)
    if folder.is_local:
        return Path(folder.path())
    cache = cache_folder() / "index" / info.fingerprint
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of all the processes of a node, one copies
        wanted = {name: entry for name, entry in info.files.items() if thumbnails or name != THUMBNAILS}
        missing = {name: entry for name, entry in wanted.items() if not (cache / name).exists()}
        if missing or not (cache / "index.json").exists():
            with tempfile.TemporaryDirectory(dir=cache.parent) as draft:
                _check_sizes(folder, missing)
                for name, entry in missing.items():
                    _download(folder, name, Path(draft, name), entry["bytes"])
                check_files(Path(draft), replace(info, files=missing), folder.uri)
                cache.mkdir(exist_ok=True)
                for name in missing:
                    Path(draft, name).rename(cache / name)
                Path(draft, "index.json").write_bytes(info.to_json())
                Path(draft, "index.json").rename(cache / "index.json")
    return cache


def _download(folder: Folder, name: str, target: Path, size: int) -> None:
    """In ranges beside each other, which a store gives faster than one after the other."""
    with target.open("wb") as file, ThreadPoolExecutor(_RANGES_AT_ONCE) as pool:
        file.truncate(size)

        def fetch(start: int) -> None:
            end = min(size, start + _RANGE_BYTES)
            os.pwrite(file.fileno(), folder.filesystem.cat_file(folder.path(name), start=start, end=end), start)

        list(pool.map(fetch, range(0, size, _RANGE_BYTES)))


def check_index(folder: Folder) -> IndexInfo:
    """Before work, without copying it: that all its files are there, of their size, and, of a local one, that they are what they
    were, which is looked at again only if one has been touched. Raises UsageError naming the file that is damaged."""
    info = read_info(folder)
    if not folder.is_local:
        _check_sizes(folder, info.files)
        return info
    path = Path(folder.path())
    touched = [(name, (path / name).stat().st_mtime_ns if (path / name).exists() else 0) for name in sorted(info.files)]
    stamp = hashlib.blake2b(json.dumps([str(path), info.fingerprint, touched]).encode(), digest_size=16).hexdigest()
    checked = cache_folder() / "checked" / stamp
    check_files(path, info, folder.uri, content=not checked.exists())
    checked.parent.mkdir(parents=True, exist_ok=True)
    checked.touch()
    return info


def publish(folder: Folder, write: Callable[[Path], IndexInfo]) -> IndexInfo:
    """Have an index written beside its place, or on this machine for a bucket, and move it there, index.json last."""
    parent = folder.path() if folder.is_local else None
    if parent:
        Path(parent).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".draft-") as draft:
        info = write(Path(draft))
        for file in sorted(Path(draft).iterdir(), key=lambda file: (file.name == "index.json", file.name)):
            folder.upload(file, file.name)
    return info


def check_files(path: Path, info: IndexInfo, uri: str, content: bool = True) -> None:
    """Raises UsageError."""
    for name, entry in info.files.items():
        file = path / name
        _check_size(name, file.stat().st_size if file.exists() else None, entry["bytes"], uri)
        if content and checksum(file) != entry["blake2b"]:
            raise _damaged(name, uri)


def _check_sizes(folder: Folder, files: dict[str, dict]) -> None:
    """Of a bucket's files."""
    sizes = {path.rsplit("/", 1)[-1]: size for path, size in folder.filesystem.du(folder.path(), total=False).items()}
    for name, entry in files.items():
        _check_size(name, sizes.get(name), entry["bytes"], folder.uri)


def _check_size(name: str, size: int | None, wanted: int, uri: str) -> None:
    if size is None:
        raise UsageError(f"--index {uri}: {name} is missing; rebuild the index")
    if size != wanted:
        raise _damaged(name, uri)


def _damaged(name: str, uri: str) -> UsageError:
    return UsageError(f"--index {uri}: {name} is damaged (size or checksum differs); copy it again or rebuild")


def checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
