"""From pixels to places: encode, retrieve, choose, and say how sure. The same object serves a batch and a request."""

import time

import numpy as np
import pyarrow as pa

from geoloc.encoders.alignment import load_alignment, part_of
from geoloc.encoders.location import LocationEncoder
from geoloc.encoders.presets import Preset
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.estimate.retriever import Retriever
from geoloc.geo.places import place_text, places
from geoloc.index.store import Index
from geoloc.photos.views import View
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.choosers import Chooser, Density, Top1, check_chooser
from geoloc.ranking.verification import Verification
from geoloc.schema import CANDIDATE, LOCATED

_NAME_CACHE_ROWS = 200_000
"""Indexes smaller than this have their place names put into words once, not for every candidate."""


ESTIMATES = [field.name for field in LOCATED if field.name.startswith(("radius", "confidence", "estimate"))]


class Locator:
    def __init__(self, options: LocatorOptions, device: str = "cpu", threads: int = 1) -> None:
        self._options = options
        self._retriever = Retriever(options.preset, options.index, device, threads)
        self._index = self._retriever.index
        self._chooser = make_chooser(options.chooser, options.preset, options.density_sigma_km, device)
        self._confidence = Confidence(self._chooser.scale, options.calibration, options.abstention)
        names = self._index.place.to_pylist() if self._index.info.rows < _NAME_CACHE_ROWS else None
        self._place_texts = None if names is None else np.array([place_text(name) for name in names], object)

    @property
    def index(self) -> Index:
        return self._index

    @property
    def encoder_fingerprint(self) -> str:
        return self._retriever.encoder_fingerprint

    @property
    def view(self) -> View:
        """What of a photo is to be loaded."""
        return self._retriever.view

    def locate(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of LOCATED, row for row, without ``geometry`` and ``bbox``; with ``picture`` if it is to be ranked, and
        without ``rank_s`` if not."""
        start = time.perf_counter()
        columns = _carried_over(batch)
        vectors, rows = self._retriever.encode(batch)
        if len(rows):
            encoded = time.perf_counter()
            self._answer(vectors, rows, columns)
            columns["embed_s"][rows] = (encoded - start) / len(rows)
            columns["retrieve_s"][rows] = (time.perf_counter() - encoded) / len(rows)
        lat, lon = columns["lat"], columns["lon"]
        columns["place"] = places().lookup(lat, lon)
        schema = pa.schema([field for field in LOCATED if field.name not in ("geometry", "bbox")])
        arrays = [_array(columns[field.name], field.type) for field in schema]
        located = pa.Table.from_arrays(arrays, schema=schema)
        if self._options.ranked:
            return located.append_column("picture", batch["picture"])
        return located.drop_columns(["rank_s"])

    def _answer(self, vectors: np.ndarray, rows: np.ndarray, columns: dict) -> None:
        candidates = self._retriever.search(vectors, self._options.candidates, self._options.parts)
        scores = self._chooser.scores(vectors, candidates)
        answers = self._confidence.columns(scores, candidates.similarity, candidates.lat, candidates.lon)
        for name, values in answers.items():
            columns[name][rows] = values
        columns["method"][rows] = self._chooser.name
        columns["candidates"] = self._candidate_lists(candidates, scores, rows, len(columns["status"]))

    def _candidate_lists(self, candidates: Candidates, scores: np.ndarray, rows: np.ndarray, total: int) -> pa.Array:
        """Best first by the chooser's score; one list a row of the batch, null for rows without an answer."""
        order = np.argsort(-scores, axis=1, kind="stable")
        known = np.take_along_axis(candidates.row, order, axis=1) >= 0
        flat = {
            "lat": candidates.lat,
            "lon": candidates.lon,
            "score": scores,
            "similarity": candidates.similarity,
            "reference_id": candidates.row,
        }
        flat = {name: np.take_along_axis(values, order, axis=1)[known] for name, values in flat.items()}
        ids = flat["reference_id"]
        flat["source"] = pa.array(np.full(len(ids), "retrieved"))
        flat["reference"] = self._index.uri.take(pa.array(ids))
        flat["place"] = self._places_of(ids)
        values = pa.StructArray.from_arrays([pa.array(flat[f.name], f.type) for f in CANDIDATE], fields=list(CANDIDATE))
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


def make_chooser(name: str, preset: Preset, density_sigma_km: float, device: str = "cpu") -> Chooser:
    """Raises UsageError where there is no such chooser, or the preset cannot serve it."""
    check_chooser(name, preset)
    scale = preset.similarity_scale
    if name == "verification":
        if preset.alignment is not None:
            return Verification(load_alignment(preset.alignment).to(device).encode_locations, scale, _in_location_space)
        return Verification(LocationEncoder.geoclip().to(device).encode, scale)
    return Top1(scale) if name == "top1" else Density(scale, density_sigma_km)


def _in_location_space(vectors: np.ndarray) -> np.ndarray:
    return part_of(vectors, "location")


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
        "candidates": pa.nulls(rows, LOCATED.field("candidates").type),
        "true_lat": np.where(use_exif, exif_lat, true_lat),
        "true_lon": np.where(use_exif, exif_lon, true_lon),
        **{name: np.zeros(rows, np.float32) for name in ("embed_s", "retrieve_s", "rank_s")},
    }


def _array(values, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """NumPy's NaN and None become null."""
    return pa.array(values, kind, from_pandas=True) if isinstance(values, np.ndarray) else values
