"""A stage's models as Ray runs them: on actors that load them once."""

import functools
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import ray

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.ranking.options import RankerOptions
from geoloc.ranking.scorers import RankerFacts
from geoloc.recipes.method import Facts, Method
from geoloc.recipes.stage import Build

T = TypeVar("T")


class ModelActor:
    def __init__(self, build: Build, device: str, threads: int, name: str, pulse: ray.actor.ActorHandle) -> None:
        """``name`` of the stage, under which it tells ``pulse`` what it is at (geoloc.pipeline.watch)."""
        import faiss
        import torch

        torch.set_num_threads(1)  # the encoder spreads photos over the threads, not each photo's arithmetic
        faiss.omp_set_num_threads(threads)
        self._name, self._pulse = name, pulse
        self._answer = build(device, threads)
        pulse.beat.remote(name, "one of its processes became ready")

    def __call__(self, batch: pa.Table) -> pa.Table:
        self._pulse.beat.remote(self._name, f"began a batch of {batch.num_rows}")
        answer = self._answer(batch)
        self._pulse.beat.remote(self._name, "ended a batch")
        return answer


def probe(method: Method) -> Facts:
    """Load its encoder once on the cluster, and look at its rankers, before any photo is read. Raises UsageError where its models
    cannot be had, or the encoder is not the index's."""
    known = probe_encoder(method.config)
    method.check_encoder(known.weights["encoder"])
    facts = functools.partial(method.facts, known.view, known.dimension, known.weights["encoder"])
    return _on_cluster(facts) if method.recipe.rankers else facts()  # theirs take torch, which drivers do without


@functools.cache
def probe_encoder(config: EncoderConfig) -> Facts:
    """Load an encoder once on the cluster. Raises UsageError where it cannot be had."""
    return _on_cluster(functools.partial(_encoder_facts, config))


def probe_ranker(options: RankerOptions) -> RankerFacts:
    """Look at a ranker's model folder and adapter, but not at the model's weights. Raises UsageError where it cannot be
    had, or its pictures do not fit into its context."""
    return _on_cluster(functools.partial(_ranker_facts, options))


def _encoder_facts(config: EncoderConfig) -> Facts:
    from geoloc.encoders.image import ImageEncoder

    encoder = ImageEncoder(config)
    return Facts(encoder.view, None, encoder.dimension, {"encoder": encoder.fingerprint})


def _ranker_facts(options: RankerOptions) -> RankerFacts:
    from geoloc.ranking.georanker import check_ranker

    return check_ranker(options)


def _on_cluster(ask: Callable[[], T]) -> T:
    try:
        return ray.get(_called.remote(ask))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise UsageError(str(error.cause)) from error
        raise


@ray.remote(num_cpus=0)
def _called(ask: Callable[[], T]) -> T:
    return ask()
