"""The models as Ray runs them: on actors that load them once.

torch and what builds on it take many seconds to import. They are imported where models live, not here: the driver,
the loading tasks and ``--help`` do without them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import ray

from geoloc.encoders.presets import Preset
from geoloc.errors import UsageError
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import ComparisonOptions, LocatorOptions
from geoloc.photos.views import AreaView, View
from geoloc.ranking.options import GeoRankingOptions, RankerOptions, RerankOptions
from geoloc.storage import Folder

Answer = Callable[[pa.Table], pa.Table]
"""From a batch of LOADED to rows to be written."""
Build = Callable[[str, int], Answer]
"""Loads the models for a device and so many threads."""


class ModelActor:
    def __init__(self, build: Build, device: str, threads: int) -> None:
        import faiss
        import torch

        torch.set_num_threads(1)  # the encoder spreads photos over the threads, not each photo's arithmetic
        faiss.omp_set_num_threads(threads)
        self._answer = build(device, threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self._answer(batch)


def build_locator(options: LocatorOptions, device: str, threads: int) -> Answer:
    from geoloc.estimate.locator import Locator

    return Locator(options, device, threads).locate


def build_referencer(models: Preset, multimodal: bool, device: str, threads: int) -> Answer:
    from geoloc.index.reference import Referencer

    return Referencer(models, device, threads, multimodal).refer


def build_featurer(models: Preset, device: str, threads: int) -> Answer:
    from geoloc.index.reference import Featurer

    return Featurer(models, device, threads).refer


def build_comparison(options: ComparisonOptions, device: str, threads: int) -> Answer:
    from geoloc.estimate.comparison import Comparison

    return Comparison(options, device, threads).compare


def build_reranker(
    ranker: RankerOptions, index: Folder, options: RerankOptions, confidence: Confidence, device: str, threads: int
) -> Answer:
    import torch

    from geoloc.estimate.reranker import Reranker
    from geoloc.index.store import Index, local_copy
    from geoloc.ranking.scorer import Ranker

    torch.set_num_threads(threads)
    return Reranker(Ranker.load(ranker, device, threads), Index(local_copy(index)), options, confidence).rerank


def build_retrieved_georanking(
    models: Preset, index: Folder, options: GeoRankingOptions, device: str, threads: int
) -> Answer:
    from geoloc.ranking.georanking import GeoRanking, Retrieved

    return GeoRanking(Retrieved(models, index, options, device, threads), options).build


def build_published_georanking(
    table: tuple[Folder, str], images: Folder, options: GeoRankingOptions, device: str, threads: int
) -> Answer:
    from geoloc.ranking.georanking import GeoRanking, Published

    return GeoRanking(Published(*table, images, options), options).build


@dataclass(frozen=True)
class EncoderFacts:
    view: View
    dimension: int
    fingerprint: str


@functools.cache
def probe_encoder(models: Preset) -> EncoderFacts:
    """Load the image model once on the cluster, before any photo is read. Raises UsageError where it cannot be had."""
    return _asked(_probe_encoder.remote(models))


@dataclass(frozen=True)
class RankerFacts:
    view: AreaView
    """What it looks at of a photo."""
    fingerprint: str


@functools.cache
def probe_ranker(options: RankerOptions) -> RankerFacts:
    """Look at a ranker's model folder and adapter, but not at the model's weights. Raises UsageError where it cannot be
    had, or its pictures do not fit into its context."""
    return _asked(_probe_ranker.remote(options))


def _asked(answer: ray.ObjectRef):
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise UsageError(str(error.cause)) from error
        raise


@ray.remote(num_cpus=0)
def _probe_ranker(options: RankerOptions) -> RankerFacts:
    from geoloc.ranking.georanker import check_ranker

    return RankerFacts(*check_ranker(options))


@ray.remote(num_cpus=0)
def _probe_encoder(models: Preset) -> EncoderFacts:
    from geoloc.encoders.image import ImageEncoder

    encoder = ImageEncoder(models)
    return EncoderFacts(encoder.view, encoder.dimension, encoder.fingerprint)
