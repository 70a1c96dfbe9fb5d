"""What an alignment learns from: image features, coordinates and sentences of photos whose places are known.

The features were computed once and lie in Parquet parts. A node copies them into one memory-mapped array, which its
training processes share and read in any order.
"""

import fcntl
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.encoders.text import place_sentence
from geoloc.index.rows import in_order, indexed_rows
from geoloc.results.parts import Parts
from geoloc.storage import cache_folder


@dataclass(frozen=True)
class Examples:
    ids: np.ndarray
    """(n,) of the manifest."""
    features: np.ndarray
    """(n, d) float32, memory-mapped."""
    coordinates: np.ndarray
    """(n, 2) float32 of (lat, lon)."""
    sentence: np.ndarray
    """(n,) row of ``sentences``; -1 for a photo without words."""
    sentences: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def open(cls, parts: Parts) -> "Examples":
        """From parts of REFERENCE rows; those that were not indexed are left out."""
        name = hashlib.blake2b("".join([parts.folder.uri, *parts.names()]).encode(), digest_size=12).hexdigest()
        cache = cache_folder() / "features" / name
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all the processes of a node, one copies
            if not (cache / "rows.parquet").exists():
                _copy(parts, cache)
        rows = pq.read_table(cache / "rows.parquet")
        words = rows["sentence"].combine_chunks().dictionary_encode()
        return cls(
            rows["id"].to_numpy(),
            np.load(cache / "features.npy", mmap_mode="r"),
            np.stack([rows["lat"].to_numpy(), rows["lon"].to_numpy()], axis=1).astype(np.float32),
            words.indices.fill_null(-1).to_numpy(),
            words.dictionary.to_pylist(),
        )


def _copy(parts: Parts, cache: Path) -> None:
    total, row, tables, features = indexed_rows(parts), 0, [], None
    for table in in_order(parts, cache):
        flat = table["vector"].combine_chunks().flatten().to_numpy()
        if features is None:
            shape = (total, len(flat) // table.num_rows)
            features = np.lib.format.open_memmap(cache / "features.npy", "w+", np.float32, shape)
        features[row : row + table.num_rows] = flat.reshape(table.num_rows, -1)
        row += table.num_rows
        sentences = [place_sentence(place) for place in table["place"].to_pylist()]
        tables.append(table.select(["id", "lat", "lon"]).append_column("sentence", pa.array(sentences, pa.string())))
    features.flush()
    pq.write_table(pa.concat_tables(tables), cache / "rows.parquet.tmp")
    (cache / "rows.parquet.tmp").rename(cache / "rows.parquet")


@dataclass(frozen=True)
class Order:
    """Which photos are in which batch: shuffled anew every epoch, the same for every number of workers.

    The photos beyond the last whole batch of an epoch are left out of that epoch.
    """

    photos: int
    batch: int
    seed: int

    @property
    def steps_an_epoch(self) -> int:
        return self.photos // self.batch

    def rows(self, step: int) -> np.ndarray:
        """(batch,) of the step's photos, counted over all epochs."""
        epoch, number = divmod(step, self.steps_an_epoch)
        return _shuffled(self.photos, self.seed, epoch)[number * self.batch : (number + 1) * self.batch]

    def before(self, step: int, photos: int) -> np.ndarray:
        """So many photos, or as many as there were, of the steps before: the most recent first."""
        steps = range(step - 1, max(-1, step - 1 - -(-photos // self.batch)), -1)
        return np.concatenate([np.zeros(0, np.int64), *(self.rows(earlier)[::-1] for earlier in steps)])[:photos]


@functools.lru_cache(maxsize=2)
def _shuffled(photos: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(photos)
