"""Nearest vectors by inner product: exact on CPU or GPUs, approximate where the index folder has been given that."""

import threading
from pathlib import Path

import faiss
import numpy as np

_GPU_SCRATCH = 512 << 20


def exact_search(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of ``vectors`` (rows, d) with the largest inner product, for each of ``queries`` (n, d).

    Returns scores (n, k) float32, descending, and row numbers (n, k) int64. ``vectors`` may be memory-mapped: it is
    read through once, never copied.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


class CpuSearcher:
    """Exact search where the vectors lie, or approximate with ``ann`` (a FAISS file) and its search parameters."""

    def __init__(self, vectors: np.ndarray, ann: Path | None = None, parameters: dict | None = None) -> None:
        self._vectors = vectors
        self._ann = None
        if ann is not None:
            self._ann = faiss.read_index(str(ann), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            settings = ",".join(f"{name}={value}" for name, value in (parameters or {}).items())
            faiss.ParameterSpace().set_index_parameters(self._ann, settings)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``exact_search``; an approximate index that finds fewer than k fills up with row -1."""
        if self._ann is None:
            return exact_search(self._vectors, queries, k)
        return self._ann.search(np.ascontiguousarray(queries, np.float32), k)


class GpuSearcher:
    """Exact search in float16 on one GPU, or on several that share the rows where one is too small."""

    def __init__(self, vectors: np.ndarray, devices: list[int]) -> None:
        self._shards = []
        self._resources = []  # FAISS does not keep them alive
        self._alone = threading.Lock()  # nor does it let two threads use them at once
        for device, rows in zip(devices, np.array_split(np.arange(len(vectors)), len(devices)), strict=True):
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(_GPU_SCRATCH)
            config = faiss.GpuIndexFlatConfig()
            config.device, config.useFloat16 = device, True
            shard = faiss.GpuIndexFlatIP(resources, vectors.shape[1], config)
            start, stop = int(rows[0]), int(rows[-1]) + 1
            shard.add(vectors[start:stop])  # FAISS copies it in pages
            self._resources.append(resources)
            self._shards.append((start, shard))

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``exact_search``."""
        queries = np.ascontiguousarray(queries, np.float32)
        found = []
        with self._alone:
            for start, shard in self._shards:
                scores, rows = shard.search(queries, min(k, shard.ntotal))
                found.append((scores, rows + start))
        scores, rows = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
