"""Candidates as arrays, which models work on, and as the lists of a result row."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Candidates:
    """Retrieved for n photos, k each, best first: all arrays (n, k). Row -1 is no candidate."""

    row: np.ndarray
    similarity: np.ndarray
    lat: np.ndarray
    lon: np.ndarray

    def first(self, k: int) -> "Candidates":
        """The k most similar of each photo."""
        return Candidates(self.row[:, :k], self.similarity[:, :k], self.lat[:, :k], self.lon[:, :k])


def padded(lists: pa.ListArray, names: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The lengths (n,) of lists of structs, null counting as empty, and their fields (n, longest), in the lists' order.

    What a list lacks to the longest is -inf.

    >>> padded(pa.array([[{"lat": 1.0}, {"lat": 2.0}], None, [{"lat": 3.0}]]), ["lat"])[1]["lat"]
    array([[  1.,   2.],
           [-inf, -inf],
           [  3., -inf]])
    """
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    values = lists.flatten()  # without what lies under nulls
    shape = (len(lengths), int(lengths.max(initial=0)))
    there = np.arange(shape[1]) < lengths[:, None]
    arrays = {}
    for name in names:
        arrays[name] = np.full(shape, -np.inf)
        arrays[name][there] = values.field(name).to_numpy(zero_copy_only=False)
    return lengths, arrays
