"""Nearest vectors by inner product: exact on CPUs or GPUs, or approximate and then exact among the best."""

import threading
from pathlib import Path

import faiss
import numpy as np

USUAL_K = 20
"""Rows that are asked for together; recall is told at so many."""
_GPU_SCRATCH = 512 << 20


def exact_search(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of ``vectors`` (rows, d) with the largest inner product, for each of ``queries`` (n, d).

    Returns scores (n, k) float32, descending, and row numbers (n, k) int64. ``vectors`` may be memory-mapped: it is
    read through once, never copied.

    >>> scores, rows = exact_search(np.eye(3, dtype=np.float32), np.array([[0.1, 0.9, 0.5]]), k=2)
    >>> scores, rows
    (array([[0.9, 0.5]], dtype=float32), array([[1, 2]]))
    """
    queries = np.ascontiguousarray(queries, np.float32)
    return faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)


def set_parameters(index: faiss.Index, parameters: dict) -> None:
    settings = ",".join(f"{name}={value}" for name, value in parameters.items())
    faiss.ParameterSpace().set_index_parameters(index, settings)


class ExactSearcher:
    """On CPUs, where the vectors lie."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``exact_search``."""
        return exact_search(self._vectors, queries, k)


class ReRanked:
    """Approximate search whose best rows are compared by their exact vectors."""

    def __init__(self, vectors: np.ndarray, index: faiss.Index, rerank: int) -> None:
        """``rerank``: so many times the rows that are wanted, or USUAL_K, are compared; ``vectors`` may be memory-mapped."""
        self._vectors, self._index, self._rerank = vectors, index, rerank

    @classmethod
    def open(cls, vectors: np.ndarray, file: Path, ann: dict) -> "ReRanked":
        """A FAISS file, memory-mapped, with what ``write_ann`` said of it."""
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        set_parameters(index, ann["parameters"])
        return cls(vectors, index, ann["rerank"])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``exact_search``, with exact scores; where fewer than k rows are found, the rest are -1, scored -inf."""
        queries = np.ascontiguousarray(queries, np.float32)
        compared = max(k, USUAL_K) * self._rerank
        rows = self._index.search(queries, min(compared, len(self._vectors)))[1]
        scores = np.full(rows.shape, -np.inf, np.float32)
        for number, query in enumerate(queries):
            found = rows[number] >= 0
            scores[number, found] = self._vectors[rows[number, found]] @ query
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


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
