"""Several ways of choosing, side by side on the same photos: encoded once, searched once, chosen many times."""

import time

import numpy as np
import pyarrow as pa

from geoloc.estimate.confidence import Confidence
from geoloc.estimate.locator import make_chooser
from geoloc.estimate.options import ComparisonOptions
from geoloc.estimate.retriever import Retriever
from geoloc.ranking.candidates import Candidates
from geoloc.schema import COMPARED


class Comparison:
    def __init__(self, options: ComparisonOptions, device: str = "cpu", threads: int = 1) -> None:
        self._configurations = options.configurations
        self._retriever = Retriever(options.preset, options.index, device, threads, options.ten_crop)
        self._choosers = {
            name: make_chooser(name, options.preset, options.density_sigma_km, device)
            for name in {configuration.chooser for configuration in options.configurations}
        }

    def compare(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of COMPARED, row for row; ``status`` is ``compared`` or ``failed``."""
        start = time.perf_counter()
        vectors, rows = self._retriever.encode(batch)
        encoded = time.perf_counter()
        status = np.array(batch["status"].to_pylist(), object)
        status[rows] = "compared"
        columns = {name: batch[name] for name in ("id", "uri", "error_kind", "error", "fetch_s", "decode_s")}
        columns |= {"status": status, "true_lat": batch["lat"], "true_lon": batch["lon"]}
        columns["answers"] = _in_rows(self._answers(vectors) if len(rows) else [], rows, batch.num_rows)
        each = max(1, len(rows))
        columns["embed_s"] = _seconds((encoded - start) / each, rows, batch.num_rows)
        columns["retrieve_s"] = _seconds((time.perf_counter() - encoded) / each, rows, batch.num_rows)
        return pa.table({name: columns[name] for name in COMPARED.names}, schema=COMPARED)

    def _answers(self, vectors: np.ndarray) -> list[list[dict]]:
        """For each photo, one of every configuration."""
        most = max(configuration.candidates for configuration in self._configurations)
        found = {
            parts: self._retriever.search(vectors, most, parts)
            for parts in {configuration.parts for configuration in self._configurations}
        }
        answers: list[list[dict]] = [[] for _ in vectors]
        for configuration in self._configurations:
            candidates = found[configuration.parts].first(configuration.candidates)
            chooser = self._choosers[configuration.chooser]
            scores = chooser.scores(vectors, candidates)
            columns = Confidence(chooser.scale).columns(scores, candidates.similarity, candidates.lat, candidates.lon)
            lists = _lists(candidates, scores)
            for photo, answer in enumerate(answers):
                values = {name: float(columns[name][photo]) for name in ("lat", "lon", "confidence", "radius_km")}
                answer.append({"configuration": configuration.name, **values, "candidates": lists[photo]})
        return answers


def _lists(found: Candidates, scores: np.ndarray) -> list[list[dict]]:
    names = ("reference_id", "similarity", "lat", "lon", "score")
    columns = (array.tolist() for array in (found.row, found.similarity, found.lat, found.lon, scores))
    return [
        [dict(zip(names, values, strict=True)) for values in zip(*photo, strict=True) if values[0] >= 0]
        for photo in zip(*columns, strict=True)
    ]


def _in_rows(values: list, rows: np.ndarray, total: int) -> list:
    """As long as the batch: the values in their rows, None elsewhere."""
    column = [None] * total
    for row, value in zip(rows.tolist(), values, strict=True):
        column[row] = value
    return column


def _seconds(each: float, rows: np.ndarray, total: int) -> np.ndarray:
    seconds = np.zeros(total, np.float32)
    seconds[rows] = each
    return seconds
