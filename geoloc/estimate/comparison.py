"""Several recipes side by side on the same photos: encoded once, searched once an index, answered by each."""

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from geoloc.encoders.image import ImageEncoder
from geoloc.estimate.finder import Finder
from geoloc.estimate.locator import Locator, with_seconds
from geoloc.estimate.options import ComparisonOptions
from geoloc.estimate.reranker import Reranker
from geoloc.estimate.retriever import Retriever
from geoloc.schema import ANSWER, compared
from geoloc.storage import Folder


class Comparison:
    def __init__(self, options: ComparisonOptions, device: str = "cpu", threads: int = 1) -> None:
        encoder = ImageEncoder(options.locators[0].config, device, threads)
        opened: dict[Folder, Finder] = {}
        self._retrievers = {
            (indexes, pooling): Retriever(encoder, indexes, options.ten_crop, pooling, opened)
            for indexes, pooling in {(locator.indexes, locator.pooling) for locator in options.locators}
        }
        self._locators = [
            Locator(locator, self._retrievers[locator.indexes, locator.pooling], device) for locator in options.locators
        ]
        self._schema = compared(len(options.locators), any(locator.ranked for locator in options.locators))

    def compare(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of ``compared``, row for row; ``status`` is ``compared`` or ``failed``."""
        start = time.perf_counter()
        vectors, rows = next(iter(self._retrievers.values())).encode(batch)
        encoded = time.perf_counter()
        status = np.array(batch["status"].to_pylist(), object)
        status[rows] = "compared"
        columns = {name: batch[name] for name in ("id", "uri", "error_kind", "error", "fetch_s", "decode_s")}
        columns |= {"status": status, "true_lat": batch["lat"], "true_lon": batch["lon"]}
        columns |= {
            name: np.zeros(batch.num_rows, np.float32) for name in ("embed_s", "retrieve_s", "generate_s", "rank_s")
        }
        if "picture" in self._schema.names:
            columns["picture"] = batch["picture"]
        found = self._search(vectors)
        for number, locator in enumerate(self._locators):
            own = found[_search_of(locator)].first(locator.options.candidates)
            columns[f"answer_{number}"] = _answers(locator.answer(batch, rows, vectors, own), rows)
        table = pa.table({name: columns[name] for name in self._schema.names}, schema=self._schema)
        table = with_seconds(table, "embed_s", rows, encoded - start)
        return with_seconds(table, "retrieve_s", rows, time.perf_counter() - encoded)

    def _search(self, vectors: np.ndarray) -> dict:
        """By what is searched for, as many candidates as any locator wants of it."""
        most: dict[tuple, int] = {}
        for locator in self._locators:
            key = _search_of(locator)
            most[key] = max(most.get(key, 0), locator.options.candidates)
        return {key: self._retrievers[key[:2]].search(vectors, count, key[2]) for key, count in most.items()}


def _search_of(locator: Locator) -> tuple:
    """Locators that search for the same can share what is found. A pool of more places is another one."""
    options = locator.options
    return options.indexes, options.pooling, options.parts, options.pooling and options.candidates


@dataclass(frozen=True)
class ComparedReranker:
    """A ranker's part of a comparison: it works on one column of answers, and passes the others on."""

    number: int
    reranker: Reranker
    last: bool
    """Whether no other ranker, of whatever recipe, wants the pictures."""

    def rerank(self, batch: pa.Table) -> pa.Table:
        name = f"answer_{self.number}"
        answers = batch[name].combine_chunks()
        table = pa.Table.from_arrays(answers.flatten(), schema=pa.schema(list(ANSWER)))
        done = self.reranker.rerank(table.append_column("picture", batch["picture"]))
        rows = np.flatnonzero(np.asarray(answers.is_valid()))
        batch = batch.set_column(batch.schema.get_field_index(name), name, _answers(done, rows))
        before = np.nansum(table["rank_s"].to_numpy(zero_copy_only=False))
        spent = (
            np.nansum(batch["rank_s"].to_numpy()) + np.nansum(done["rank_s"].to_numpy(zero_copy_only=False)) - before
        )
        batch = with_seconds(batch, "rank_s", rows, spent)
        return batch.drop_columns(["picture"]) if self.last else batch


def _answers(located: pa.Table, rows: np.ndarray) -> pa.StructArray:
    """The columns of ANSWER as one; null but in these rows."""
    absent = np.ones(located.num_rows, bool)
    absent[rows] = False
    arrays = [located[field.name].combine_chunks() for field in ANSWER]
    return pa.StructArray.from_arrays(arrays, fields=list(ANSWER), mask=pa.array(absent))
