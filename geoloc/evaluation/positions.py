"""Positions of photos: predictions or truth, ours or anyone's."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from geoloc.evaluation.table_file import CANDIDATE_PARTS, TableFile


@dataclass(frozen=True)
class Positions:
    """n photos and where they are."""

    source: str
    ids: dict[str, pa.Array]
    """Columns (n,) of strings that may identify a photo, by column name, best first."""
    lat: np.ndarray
    """(n,) degrees; NaN where there is none."""
    lon: np.ndarray
    author: pa.Array | None = None
    kept: np.ndarray | None = None
    """(n,) bool, of a run: the photo carried GPS and was left alone, so its position is no prediction."""
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    """What a run says besides, (n,) each: radius_km, confidence…"""
    lists: pa.ListArray | None = None
    """Candidates (n,), lists of structs with CANDIDATE_PARTS, where they came with the positions."""
    files: tuple[TableFile, ...] = ()
    """Where they are too many to be held."""

    def __len__(self) -> int:
        return len(self.lat)

    def groups(self, rows: np.ndarray) -> np.ndarray | None:
        """For rows (m,), integers that are equal for photos of one author; one of unknown author is by itself.

        None where no author is known.
        """
        if self.author is None:
            return None
        coded = self.author.take(pa.array(rows)).dictionary_encode()
        codes, names = coded.indices.to_numpy().astype(np.int64), coded.dictionary.to_pylist()
        if names == [""]:
            return None
        unknown = names.index("") if "" in names else -1
        return np.where(codes == unknown, len(names) + np.arange(len(codes)), codes)

    @property
    def has_candidates(self) -> bool:
        return self.lists is not None or (bool(self.files) and all("candidates" in file.names for file in self.files))

    def candidates(self) -> Iterator[tuple[int, pa.ListArray]]:
        """A piece at a time: its first row, and its candidates as lists of structs with CANDIDATE_PARTS."""
        if self.lists is not None:
            yield 0, self.lists
            return
        row = 0
        for file in self.files:
            for batch in file.candidates():
                yield row, batch
                row += len(batch)


def candidate_lists(lat: np.ndarray, lon: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    """Candidates that come in order and without scores: (sum of lengths,) coordinates, best first photo by photo.

    >>> candidate_lists(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([2, 0]))[0][1].as_py()
    {'lat': 2.0, 'lon': 4.0, 'score': -1.0, 'similarity': -1.0}
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rank = np.arange(len(lat)) - np.repeat(offsets[:-1], lengths)
    arrays = [pa.array(values, pa.float64()) for values in (lat, lon, -rank, -rank)]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, CANDIDATE_PARTS))
