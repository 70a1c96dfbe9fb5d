"""A stage's models as Ray runs them: on actors that load them once."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa
import ray
from pydantic import SecretStr

from geoloc.candidates.options import Generation
from geoloc.encoders.config import EncoderConfig
from geoloc.errors import PhotoError, UsageError
from geoloc.pipeline.plan import TOKEN_CPUS
from geoloc.ranking.options import RankerOptions
from geoloc.ranking.scorers import RankerFacts
from geoloc.recipes.method import Facts, Method
from geoloc.recipes.stage import Build
from geoloc.storage import S3Options

T = TypeVar("T")


DEATHS = 2
"""Processes that may die amid the same photos."""


class ModelActor:
    """Of a batch that its process dies of, Ray tries again without end. So after DEATHS its photos are looked at one by one, and one
    that DEATHS processes die of by itself fails as ``crashed``."""

    def __init__(self, build: Build, device: str, threads: int, name: str, pulse: ray.actor.ActorHandle) -> None:
        """``name`` of the stage, under which it tells ``pulse`` what it is at (geoloc.pipeline.watch)."""
        import faiss
        import torch

        torch.set_num_threads(1)  # the encoder spreads photos over the threads, not each photo's arithmetic
        faiss.omp_set_num_threads(threads)
        self._name, self._pulse, self._turns = name, pulse, _Turns()
        self._answer = build(device, threads)
        pulse.beat.remote(name, "one of its processes became ready")

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._deaths(batch) < DEATHS:
            with self._turns.beside_others():
                answer = self._answer(batch)
        else:
            answer = pa.concat_tables(self._alone(batch.slice(row, 1)) for row in range(batch.num_rows))
        self._pulse.end.remote(self._name, _key(batch))
        return answer

    def _alone(self, photo: pa.Table) -> pa.Table:
        with self._turns.alone():
            return self._by_itself(photo)

    def _by_itself(self, photo: pa.Table) -> pa.Table:
        if self._deaths(photo) >= DEATHS:
            reason = PhotoError("crashed", f"{DEATHS} processes of the {self._name} died of it")
            for name, value in reason.columns().items():
                at = photo.schema.get_field_index(name)
                photo = photo.set_column(at, photo.schema.field(at), pa.array([value], photo.schema.field(at).type))
        answer = self._answer(photo)
        self._pulse.end.remote(self._name, _key(photo))
        return answer

    def _deaths(self, photos: pa.Table) -> int:
        return ray.get(self._pulse.begin.remote(self._name, _key(photos), photos.num_rows))


class _Turns:
    """Of a process that works on several batches at once: what dies while a photo is looked at by itself dies of that photo."""

    def __init__(self) -> None:
        self._changed, self._beside, self._taken = threading.Condition(), 0, False

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._taken = True  # none begins any more
            self._changed.wait_for(lambda: not self._beside)
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


def _key(photos: pa.Table) -> bytes:
    return photos["id"].to_numpy().tobytes()


def probe(method: Method) -> Facts:
    """Load its encoder once on the cluster, look at its rankers, and ask whoever generates candidates about a picture, before any
    photo is read. Raises UsageError where its models cannot be had, or the encoder is not the index's."""
    known = probe_encoder(method.config)
    method.check_encoder(known.weights["encoder"])
    if generation := method.recipe.generation:
        _on_cluster(functools.partial(_check_engine, generation, method.s3, generation.engine.key()))
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


def _check_engine(generation: Generation, s3: S3Options, key: SecretStr | None) -> None:
    from geoloc.candidates.engine import check_engine

    check_engine(generation, s3, key)


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


@ray.remote(num_cpus=TOKEN_CPUS)  # of a node that works: the head has no room for models
def _called(ask: Callable[[], T]) -> T:
    return ask()
