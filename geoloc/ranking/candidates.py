"""Candidates as arrays, which models work on, and as the lists of a result row."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Candidates:
    """Of n photos, k each: all arrays (n, k). The retrieved ones first, most similar first; then those that a model generated."""

    row: np.ndarray
    """Of the index; -1 for one that is generated, or none."""
    similarity: np.ndarray
    lat: np.ndarray
    lon: np.ndarray
    votes: np.ndarray | None = None
    """Replies of a model that name it, some of which may count several times; None where none was asked."""
    extent_km: np.ndarray | None = None
    """How far around its place a cell reaches; None where all are points."""
    evidence: np.ndarray | None = None
    """(n, k, features) of places in a pool (geoloc.ranking.evidence); None where candidates were not pooled."""

    @property
    def known(self) -> np.ndarray:
        """(n, k), whether there is a candidate."""
        return self.row >= 0 if self.votes is None else (self.row >= 0) | (self.votes > 0)

    def first(self, k: int) -> "Candidates":
        """The first k of each photo."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return Candidates(*(None if part is None else part[:, :k] for part in parts))

    @classmethod
    def of(cls, photos: Sequence[Sequence[dict]], weights: Mapping[str, int] = MappingProxyType({})) -> "Candidates":
        """Of lists of candidates (schema.CANDIDATE), in this order; a reply to a prompt is so many votes, usually one.

        >>> one = {"lat": 1.0, "lon": 2.0, "similarity": None, "reference_id": None, "prompts": ["zero-shot"]}
        >>> found = Candidates.of([[one], []])
        >>> found.row, found.known
        (array([[-1],
               [-1]]), array([[ True],
               [False]]))
        """
        shape = len(photos), max((len(one) for one in photos), default=0)
        found = cls(np.full(shape, -1), np.zeros(shape, np.float32), *np.zeros((2, *shape)), np.zeros(shape, int))
        for photo, listed in enumerate(photos):
            for number, candidate in enumerate(listed):
                at = photo, number
                found.lat[at], found.lon[at] = candidate["lat"], candidate["lon"]
                found.votes[at] = sum(weights.get(name, 1) for name in candidate["prompts"] or ())
                if candidate["reference_id"] is not None:
                    found.row[at], found.similarity[at] = candidate["reference_id"], candidate["similarity"]
        return found


def padded(lists: pa.ListArray, names: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The lengths (n,) of lists of structs, null counting as empty, and their fields (n, longest), in the lists' order.

    What a list lacks to the longest is -inf, and so is null: a candidate without a score, or without a similarity.

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
        arrays[name][there] = values.field(name).fill_null(-np.inf).to_numpy(zero_copy_only=False)
    return lengths, arrays
