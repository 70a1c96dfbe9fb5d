"""Write an index folder: one pass over its rows, memory bounded by a batch."""

import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.index.search import USUAL_K, ReRanked, exact_search, set_parameters
from geoloc.index.store import CANDIDATES, CELLS, THUMBNAILS, IndexInfo, checksum

_RECALL_QUERIES, _TRAINING_ROWS = 1_000, 262_144


def write_index(path: Path, info: IndexInfo, references: Iterable[pa.Table], ann: str | None = None) -> IndexInfo:
    """Write batches of REFERENCE, every row with a vector, ``info.rows`` in all, as an index at ``path``.

    ``ann``: ``ivfpq`` or ``hnsw`` adds an approximate index over the same rows. Returns the info with its checksums.
    """
    path.mkdir(parents=True, exist_ok=True)
    schema, shape = CANDIDATES if info.kind != "cells" else CELLS, (info.rows, info.dimension)
    vectors = np.lib.format.open_memmap(path / "vectors.npy", "w+", np.float32, shape)
    row = offset = 0
    with ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(path / "candidates.parquet", schema, compression="zstd"))
        thumbnails = stack.enter_context((path / THUMBNAILS).open("wb"))
        for batch in references:
            flat = batch["vector"].combine_chunks().flatten().to_numpy()
            vectors[row : row + batch.num_rows] = flat.reshape(-1, info.dimension)
            row += batch.num_rows
            at, sizes = [], []
            for data in batch["thumbnail"].to_pylist():
                at.append(None if data is None else offset)
                sizes.append(None if data is None else len(data))
                offset += len(data or b"")
                thumbnails.write(data or b"")
            columns = {name: batch[name] for name in schema.names if name in batch.column_names}
            writer.write_table(pa.table(columns | {"thumbnail_at": at, "thumbnail_size": sizes}, schema=schema))
    if row != info.rows:
        raise ValueError(f"{info.rows} rows announced, {row} given")
    vectors.flush()
    if ann:
        info = replace(info, ann=write_ann(path, np.load(path / "vectors.npy", mmap_mode="r"), ann))
    files = {f.name: {"bytes": f.stat().st_size, "blake2b": checksum(f)} for f in sorted(path.iterdir()) if f.is_file()}
    info = replace(info, files={name: entry for name, entry in files.items() if name != "index.json"})
    (path / "index.json").write_bytes(info.to_json())
    return info


def write_ann(path: Path, vectors: np.ndarray, kind: str, batch: int = 65_536) -> dict:
    """An approximate index over ``vectors``, and how much of exact search it finds.

    Recall is measured with up to 1,000 of the vectors that are not in the index yet, as photos that are searched for are
    not: those that are in it are found too easily. ``recall@1`` is the share whose nearest is found, ``recall@k`` the share
    of the k nearest that are, with the best rows compared by their exact vectors (``rerank`` times as many as are wanted),
    and ``recall@1 without rerank`` as the approximate index alone has it.
    """
    rows, dimension = vectors.shape
    random = np.random.default_rng(0)
    index, parameters, rerank = _untrained(kind, rows, dimension)
    held_out = np.sort(random.choice(rows, min(_RECALL_QUERIES, rows // 10), replace=False))
    others = np.setdiff1d(np.arange(rows), held_out)
    sample = np.sort(random.choice(others, min(len(others), _TRAINING_ROWS), replace=False))
    index.train(np.ascontiguousarray(vectors[sample]))
    for some in np.array_split(others, math.ceil(len(others) / batch)):
        index.add_with_ids(np.ascontiguousarray(vectors[some]), some)
    set_parameters(index, parameters)
    info = {"kind": kind, "parameters": parameters, "rerank": rerank}
    if len(held_out):
        info |= _recall(vectors, held_out, ReRanked(vectors, index, rerank), index)
        index.add_with_ids(np.ascontiguousarray(vectors[held_out]), held_out)
    faiss.write_index(index, str(path / "ann.faiss"))
    return info


def _untrained(kind: str, rows: int, dimension: int) -> tuple[faiss.Index, dict, int]:
    """An empty index, its search parameters, and how many times the rows wanted are compared exactly."""
    if kind == "hnsw":
        index = faiss.index_factory(dimension, "IDMap,HNSW32,SQfp16", faiss.METRIC_INNER_PRODUCT)
        faiss.downcast_index(faiss.downcast_index(index).index).hnsw.efConstruction = 80
        return index, {"efSearch": 128}, 2
    lists = max(1, min(65_536, int(4 * rows**0.5), rows // 39))
    bytes_a_vector = max(m for m in range(1, dimension // 8 + 1) if dimension % m == 0)
    bits = 8 if rows >= 39 * 256 else 4
    index = faiss.index_factory(dimension, f"IVF{lists},PQ{bytes_a_vector}x{bits}", faiss.METRIC_INNER_PRODUCT)
    return index, {"nprobe": min(lists, 64)}, 10


def _recall(vectors: np.ndarray, held_out: np.ndarray, searcher: ReRanked, index: faiss.Index) -> dict:
    queries = np.ascontiguousarray(vectors[held_out])
    k = min(USUAL_K, len(vectors) - len(held_out))
    exact = exact_search(vectors, queries, k + len(held_out))[1]
    exact = np.stack([row[~np.isin(row, held_out)][:k] for row in exact])
    found, alone = searcher.search(queries, k)[1], index.search(queries, 1)[1]
    return {
        "queries": len(held_out),
        "recall@1": round(float((found[:, 0] == exact[:, 0]).mean()), 4),
        f"recall@{k}": round(float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])), 4),
        "recall@1 without rerank": round(float((alone[:, 0] == exact[:, 0]).mean()), 4),
    }
