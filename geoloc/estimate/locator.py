"""From pixels to places: encode, retrieve, choose, and say how sure. The same object serves a batch and a request."""

import time

import numpy as np
import pyarrow as pa

from geoloc.encoders.image import ImageEncoder
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.estimate.retriever import Retriever
from geoloc.geo.places import place_text, places
from geoloc.index.store import Index
from geoloc.index.union import IndexUnion
from geoloc.ranking.candidates import Candidates
from geoloc.schema import ASKING, CANDIDATE, JOINT, LOCATED

_NAME_CACHE_ROWS = 200_000
"""Indexes smaller than this have their place names put into words once, not for every candidate."""


ESTIMATES = [field.name for field in LOCATED if field.name.startswith(("radius", "confidence", "estimate"))]


class Locator:
    def __init__(self, options: LocatorOptions, retriever: Retriever, device: str = "cpu") -> None:
        self.options, self.retriever = options, retriever
        self._score = options.chooser.load(options.config, device, options.indexes[0].s3)
        self._confidence = options.confidence or Confidence(options.chooser.scale(options.config))
        self._lists = _CandidateLists(retriever.index)

    @classmethod
    def load(cls, options: LocatorOptions, device: str = "cpu", threads: int = 1) -> "Locator":
        """Raises UsageError where its models cannot be had."""
        encoder = ImageEncoder(options.config, device, threads)
        return cls(options, Retriever(encoder, options.indexes, pooling=options.pooling), device)

    def locate(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of LOCATED, row for row, without ``geometry`` and ``bbox``; with ``picture`` if it is to be ranked,
        and with ASKING if a model is to be asked."""
        start = time.perf_counter()
        vectors, rows = self.retriever.encode(batch)
        encoded = time.perf_counter()
        candidates = self.retriever.search(vectors, self.options.candidates, self.options.parts)
        located = self.answer(batch, rows, vectors, candidates)
        seconds = {"embed_s": encoded - start, "retrieve_s": time.perf_counter() - encoded}
        for name, spent in seconds.items():
            located = with_seconds(located, name, rows, spent)
        if self.options.asked:
            for name, values in self._asking(batch, rows, vectors).items():
                located = located.append_column(name, values)
        if self.options.ranked:
            return located.append_column("picture", batch["picture"])
        return located

    def _asking(self, batch: pa.Table, rows: np.ndarray, vectors: np.ndarray) -> dict[str, pa.Array | pa.ChunkedArray]:
        """The columns of ASKING; null but in these rows."""
        points: list[list[dict]] = [[] for _ in rows]
        if self.options.dissimilar and len(rows):
            found = self.retriever.dissimilar(vectors, self.options.dissimilar, self.options.parts)
            points = [
                [{"lat": lat, "lon": lon} for row, lat, lon in zip(*of_photo, strict=True) if row >= 0]
                for of_photo in zip(found.row.tolist(), found.lat.tolist(), found.lon.tolist(), strict=True)
            ]
        told = {"vector": list(vectors), "dissimilar": points}
        columns = {}
        for name, values in told.items():
            column: list = [None] * batch.num_rows
            for row, value in zip(rows, values, strict=True):
                column[row] = value
            columns[name] = pa.array(column, ASKING[name])
        return columns | {"thumbnail": batch["thumbnail"]}

    def answer(self, batch: pa.Table, rows: np.ndarray, vectors: np.ndarray, candidates: Candidates) -> pa.Table:
        """LOCATED, of a batch's photos in these rows (n,), whose vectors (n, d) and candidates are known; nothing is timed."""
        columns = _carried_over(batch)
        if len(rows):
            scores = self._score(vectors, candidates)
            told = candidates.similarity, candidates.lat, candidates.lon, candidates.extent_km
            answers = self._confidence.columns(scores, *told)
            for name, values in answers.items():
                columns[name][rows] = values
            columns["method"][rows] = self.options.chooser.name
            columns["candidates"] = self._lists.of(candidates, scores, rows, batch.num_rows)
        columns["place"] = places().lookup(columns["lat"], columns["lon"])
        schema = pa.schema([field for field in LOCATED if field.name not in ("geometry", "bbox")])
        return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def with_seconds(table: pa.Table, name: str, rows: np.ndarray, spent: float) -> pa.Table:
    """With the seconds that were spent on photos in these rows, an equal share each; 0 for the others.

    >>> with_seconds(pa.table({"embed_s": [0.0, 0.0, 0.0]}), "embed_s", np.array([0, 2]), 3.0)["embed_s"].to_pylist()
    [1.5, 0.0, 1.5]
    """
    seconds = np.zeros(table.num_rows, np.float32)
    seconds[rows] = spent / max(1, len(rows))
    return table.set_column(table.schema.get_field_index(name), name, pa.array(seconds))


class _CandidateLists:
    """Retrieved candidates as the lists of result rows, with what an index knows of them."""

    def __init__(self, index: Index | IndexUnion) -> None:
        self._index = index
        names = index.place.to_pylist() if index.rows < _NAME_CACHE_ROWS else None
        self._place_texts = None if names is None else np.array([place_text(name) for name in names], object)

    def of(self, candidates: Candidates, scores: np.ndarray, rows: np.ndarray, total: int) -> pa.Array:
        """Best first by ``scores`` (n, k); a list for each of ``total`` rows, null but for those of ``rows`` (n,)."""
        order = np.argsort(-scores, axis=1, kind="stable")
        known = np.take_along_axis(candidates.row, order, axis=1) >= 0
        flat = {
            "lat": candidates.lat,
            "lon": candidates.lon,
            "score": np.where(np.isfinite(scores), scores, np.nan),  # null
            "similarity": candidates.similarity,
            "rank": np.broadcast_to(np.arange(scores.shape[1]), scores.shape),
            "reference_id": candidates.row,
        }
        if candidates.extent_km is not None:
            flat["extent_km"] = candidates.extent_km
        flat = {name: np.take_along_axis(values, order, axis=1)[known] for name, values in flat.items()}
        ids = flat["reference_id"]
        flat["source"] = pa.array(np.full(len(ids), "retrieved"))
        uris = self._index.uri.take(pa.array(ids))
        flat["reference"] = uris.combine_chunks() if isinstance(uris, pa.ChunkedArray) else uris
        flat["place"] = self._places_of(ids)
        flat |= {f.name: pa.nulls(len(ids), f.type) for f in CANDIDATE if f.name not in flat}
        values = pa.StructArray.from_arrays([_array(flat[f.name], f.type) for f in CANDIDATE], fields=list(CANDIDATE))
        lengths = np.zeros(total, np.int64)
        lengths[rows] = known.sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        absent = np.ones(total, bool)
        absent[rows] = False
        return pa.ListArray.from_arrays(offsets, values, mask=pa.array(absent))

    def _places_of(self, ids: np.ndarray) -> pa.Array:
        if self._place_texts is not None:
            return pa.array(self._place_texts[ids], pa.string())
        return pa.array([place_text(place) for place in self._index.place.take(pa.array(ids)).to_pylist()], pa.string())


def _carried_over(batch: pa.Table) -> dict:
    """The result columns as they are before any photo has been located: failed and kept rows are complete."""
    rows = batch.num_rows
    status = np.array(batch["status"].to_pylist(), object)
    kept = status == "kept"
    exif_lat, exif_lon = (batch[name].to_numpy() for name in ("exif_lat", "exif_lon"))
    true_lat, true_lon = (batch[name].to_numpy() for name in ("lat", "lon"))
    use_exif = np.isnan(true_lat) & ~kept
    columns = {name: batch[name] for name in batch.column_names if name in LOCATED.names}
    return columns | {
        "status": status,
        "lat": np.where(kept, exif_lat, np.nan),
        "lon": np.where(kept, exif_lon, np.nan),
        **{name: np.full(rows, np.nan) for name in ESTIMATES},
        "method": np.where(kept, "exif", None),
        **{name: pa.nulls(rows, LOCATED.field(name).type) for name in ("candidates", "generation", *JOINT)},
        "true_lat": np.where(use_exif, exif_lat, true_lat),
        "true_lon": np.where(use_exif, exif_lon, true_lon),
        **{name: np.zeros(rows, np.float32) for name in ("embed_s", "retrieve_s", "generate_s", "rank_s")},
    }


def _array(values, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """NumPy's NaN and None become null."""
    return pa.array(values, kind, from_pandas=True) if isinstance(values, np.ndarray) else values
