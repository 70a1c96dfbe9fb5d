"""Write an index folder: one pass over its rows, memory bounded by a batch."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.index.search import exact_search
from geoloc.index.store import CANDIDATES, IndexInfo, checksum

RECALL_AT = 20


def write_index(path: Path, info: IndexInfo, references: Iterable[pa.Table], ann: str | None = None) -> IndexInfo:
    """Write batches of REFERENCE, every row with a vector, ``info.rows`` in all, as an index at ``path``.

    ``ann``: ``ivfpq`` or ``hnsw`` adds an approximate index over the same rows. Returns the info with its checksums.
    """
    path.mkdir(parents=True, exist_ok=True)
    shape = (info.rows, info.dimension)
    vectors = np.lib.format.open_memmap(path / "vectors.npy", "w+", np.float32, shape)
    row = offset = 0
    with ExitStack() as stack:
        writer = stack.enter_context(pq.ParquetWriter(path / "candidates.parquet", CANDIDATES, compression="zstd"))
        thumbnails = stack.enter_context((path / "thumbnails.bin").open("wb"))
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
            columns = {name: batch[name] for name in ("lat", "lon", "uri", "place")}
            writer.write_table(pa.table(columns | {"thumbnail_at": at, "thumbnail_size": sizes}, schema=CANDIDATES))
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
    """An approximate index over ``vectors``, with its recall@20 measured against exact search on 1,000 of them."""
    rows, dimension = vectors.shape
    random = np.random.default_rng(0)
    if kind == "hnsw":
        index = faiss.index_factory(dimension, "HNSW32,SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 80
        parameters = {"efSearch": 128}
    else:
        lists = max(1, min(65_536, int(4 * rows**0.5), rows // 39))
        bytes_a_vector = max(m for m in range(1, dimension // 8 + 1) if dimension % m == 0)
        bits = 8 if rows >= 39 * 256 else 4
        index = faiss.index_factory(dimension, f"IVF{lists},PQ{bytes_a_vector}x{bits}", faiss.METRIC_INNER_PRODUCT)
        parameters = {"nprobe": min(lists, 64)}
    sample = np.sort(random.choice(rows, min(rows, 262_144), replace=False))
    index.train(np.ascontiguousarray(vectors[sample]))
    for start in range(0, rows, batch):
        index.add(np.ascontiguousarray(vectors[start : start + batch]))
    faiss.write_index(index, str(path / "ann.faiss"))
    faiss.ParameterSpace().set_index_parameters(index, ",".join(f"{k}={v}" for k, v in parameters.items()))
    queries = np.ascontiguousarray(vectors[np.sort(random.choice(rows, min(rows, 1000), replace=False))])
    k = min(RECALL_AT, rows)
    exact, found = exact_search(vectors, queries, k)[1], index.search(queries, k)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(exact, found, strict=True)])
    return {"kind": kind, "parameters": parameters, f"recall@{k}": round(float(recall), 4)}
