"""A recipe whose indexes have been found: what jobs run, what its results depend on, and the stages that carry it out."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from pydantic import SecretStr

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import EncoderConfig, parse_parts
from geoloc.errors import UsageError
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import Calibration, read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import Index, IndexInfo, open_index
from geoloc.index.union import IndexUnion
from geoloc.photos.views import AreaView, View
from geoloc.recipes.indexes import GALLERY, check_encoder, check_indexes, find_indexes
from geoloc.recipes.recipe import Recipe
from geoloc.recipes.stage import Answer, Stage
from geoloc.results.parts import Parts
from geoloc.storage import Folder, S3Options

if TYPE_CHECKING:
    from geoloc.candidates.budget import Spending
    from geoloc.estimate.generator import Generator
    from geoloc.estimate.reranker import Reranker

RETRIEVER, GENERATOR = "retriever", "generator"
RESULTS = "geotags"
"""In a run's folder: its rows."""
GATE_CALIBRATION = "--generate-calibration"
REPLIES = "replies"
"""There too: what a model said, unless the recipe names another place."""
ASKING_CALLS, ASKING_ROWS = 4, 32
"""Batches, and photos of each, that are asked about at once: more than an endpoint takes, so that none of its places is empty."""


@dataclass(frozen=True)
class Facts:
    """What is known of models when they have been loaded, or, of rankers, been looked at."""

    view: View
    """What the encoder looks at of a photo."""
    picture_view: AreaView | None
    """What rankers look at."""
    dimension: int
    """Of the encoder's vectors."""
    weights: dict[str, str]
    """Fingerprints, of the encoder and of each ranker."""
    thumbnail_px: int | None = None
    """Longest side of the picture that a model is asked about; None where none is asked."""


@dataclass(frozen=True)
class Method:
    recipe: Recipe
    indexes: tuple[Folder, ...]
    infos: tuple[IndexInfo, ...]
    home: Folder
    """Where what it makes on the way is kept: a run's folder."""

    @property
    def s3(self) -> S3Options:
        return self.home.s3

    @classmethod
    def find(cls, recipe: Recipe, made_in: Folder) -> "Method":
        """An encoder's gallery is made once, in ``made_in``. Raises UsageError."""
        recipe = recipe.pinned(made_in.s3)  # other processes, elsewhere and later, will read it
        _check_index(recipe, made_in.s3)
        retrieval, config = recipe.retrieval, recipe.encoder_config(made_in.s3)
        found = find_indexes(retrieval.index, config, retrieval.candidates, made_in)
        method = cls(recipe, tuple(folder for folder, _ in found), tuple(info for _, info in found), made_in)
        recipe.chooser.check_indexes(method.infos, retrieval.candidates, made_in.s3)
        return method

    @functools.cached_property
    def config(self) -> EncoderConfig:
        return self.recipe.encoder_config(self.s3)

    def check_encoder(self, fingerprint: str) -> None:
        """Raises UsageError where photos would be encoded otherwise than the index's were."""
        for index, info in zip(self.indexes, self.infos, strict=True):
            check_encoder(index, info, self.config, fingerprint)

    def facts(self, view: View, dimension: int, fingerprint: str) -> Facts:
        """Where the encoder's are known. Raises UsageError where there is no such ranker, or they want different pictures."""
        rankers = {ranker.name: ranker.probe(self.s3) for ranker in self.recipe.rankers}
        weights = {"encoder": fingerprint} | {name: ranker.fingerprint for name, ranker in rankers.items()}
        views = list(dict.fromkeys(ranker.view for ranker in rankers.values()))
        if len(views) > 1:
            raise UsageError(f"--recipe {self.recipe.name}: its rankers do not look at the same picture ({views})")
        generation = self.recipe.generation
        return Facts(
            view, views[0] if views else None, dimension, weights, generation.engine.image_px if generation else None
        )

    def settings(self, weights: dict[str, str]) -> dict:
        """What decides its estimates: a run goes on only with the same, and a calibration serves only the same."""
        retrieval, chooser, rankers = self.recipe.retrieval, self.recipe.chooser, self.recipe.rankers
        candidates = [
            retrieval.candidates,
            retrieval.candidates,
            *(o.ranked for o in self.recipe.rank_options(self.s3)),
        ]
        return {
            "encoder": self.config.name,
            "model": self.recipe.model,
            "index": self.index_fingerprint,
            "candidates": retrieval.candidates,
            "parts": retrieval.parts,
            **({"generation": self.recipe.generation.settings(self.s3)} if self.recipe.generation else {}),
            "scorers": [scorer.name for scorer in (chooser, *rankers)],
            "weights": weights,
        } | {
            scorer.name: scorer.settings(count, self.s3)
            for scorer, count in zip((chooser, *rankers), candidates, strict=False)
        }

    @property
    def index_fingerprint(self) -> str:
        """Of all indexes together, in their order."""
        return "+".join(info.fingerprint for info in self.infos)

    @property
    def pooling(self) -> Pooling | None:
        """How candidates are gathered to places: as the chooser wants, or, of several indexes, by their similarity alone."""
        wanted = self.recipe.chooser.pooling(self.s3)
        return Pooling(prior_weight=0) if wanted is None and len(self.indexes) > 1 else wanted

    @functools.cached_property
    def confidence(self) -> Confidence:
        """Of the results. Raises UsageError where there is no such calibration."""
        recipe, calibration = self.recipe, self._calibration
        abstention = Abstention.parse(recipe.min_confidence) if recipe.min_confidence else None
        return Confidence(recipe.scale(self.s3), calibration, abstention)

    @functools.cached_property
    def _calibration(self) -> Calibration | None:
        name = self.recipe.calibration
        return None if name is None else read_calibration(name, self.s3)

    def check_calibration(self, weights: dict[str, str]) -> None:
        """Raises UsageError where it, or a ranker's gate, was made for other estimates."""
        before = dataclasses.replace(self, recipe=self.recipe.unranked)
        for ranker in self.recipe.rankers:
            if worth := ranker.worth(self.s3):
                own = {k: v for k, v in self.settings(weights)[ranker.name].items() if k != "gate"}
                heavy = {ranker.name: {"weights": weights[ranker.name]} | own}
                settings = before.settings({"encoder": weights["encoder"]}) | {"heavy": heavy}
                worth.gate.check(settings, f"--heavy-gate of {ranker.name}")
        if self._calibration:
            self._calibration.check(self.settings(weights), f"--calibration {self.recipe.calibration}")
        if self.recipe.generation and self.recipe.generation.gate.calibration:
            before = dataclasses.replace(self, recipe=self.recipe.retrieving)
            settings = before.settings({"encoder": weights["encoder"]})
            calibration = read_calibration(before.recipe.calibration, self.s3, GATE_CALIBRATION)
            calibration.check(settings, f"{GATE_CALIBRATION} {before.recipe.calibration}")

    def stages(self) -> tuple[Stage, ...]:
        """From LOADED, with ``picture`` where there are rankers, and ``thumbnail`` where a model is asked, to LOCATED.

        Raises UsageError as ``confidence``.
        """
        rankers, _ = self.recipe.rankers, self.confidence  # a calibration is read here, and travels with the stages
        retriever = Stage(
            RETRIEVER,
            functools.partial(_build_locator, self.locator_options()),
            share=0.25 if rankers else 1.0,
            gpu_rows=64 if rankers else 256,  # so that rankers have something to do sooner
            gpu_calls=2,
            whole_index=True,
        )
        asking = [self._generator_stage()] if self.recipe.generation else []
        return (retriever, *asking, *(self._ranker_stage(number) for number in range(len(rankers))))

    def locator_options(self) -> LocatorOptions:
        """Of the first stage."""
        recipe = self.recipe
        return LocatorOptions(
            self.config,
            self.indexes,
            recipe.retrieval.candidates,
            recipe.chooser,
            parse_parts(recipe.retrieval.parts, self.config),
            self.pooling,
            self._confidence_after_retrieval(),
            ranked=bool(recipe.rankers),
            asked=recipe.generation is not None,
            dissimilar=recipe.generation.references if recipe.generation else 0,
        )

    def load_generator(self, device: str, threads: int, key: SecretStr | None) -> "Generator":
        """Raises UsageError where its model cannot be had."""
        from geoloc.candidates.budget import Budgeted
        from geoloc.candidates.cache import Cached
        from geoloc.candidates.engine import load_engine
        from geoloc.estimate.generator import Generator

        generation, chooser = self.recipe.generation, self.recipe.chooser
        engine = load_engine(generation, self.s3, device, threads, key)
        if generation.engine.kind != "published":
            cache = Folder(generation.cache, self.s3) if generation.cache else self.home / REPLIES
            if generation.budget is not None:
                engine = Budgeted(engine, generation, spent_by(self.home / RESULTS))
            engine = Cached(engine, cache, generation, self.home.uri)
        score = chooser.load(self.config, "cpu", self.s3)
        return Generator(chooser.name, score, engine, generation, self._confidence_after(0))

    def load_reranker(self, number: int, device: str, threads: int) -> "Reranker":
        """The ranker of that number with its models."""
        import torch

        from geoloc.estimate.reranker import Reranker

        torch.set_num_threads(threads)
        scorers, last = (self.recipe.chooser, *self.recipe.rankers), number == len(self.recipe.rankers) - 1
        before, ranker = scorers[number], self.recipe.rankers[number]
        return Reranker(
            ranker.name,
            ranker.load(self.s3, device, threads),
            self.open_index(),
            self.recipe.rank_options(self.s3)[number],
            self._confidence_after(number + 1),
            scale_before=before.scale(self.config) / ranker.scale(self.config),
            by="score" if number or self.pooling else "similarity",
            keep_picture=not last,
            worth=ranker.worth(self.s3),
        )

    def open_index(self) -> Index | IndexUnion:
        """Whose rows candidates tell."""
        opened = [open_index(index, thumbnails=True) for index in self.indexes]
        return opened[0] if self.pooling is None else IndexUnion(opened)

    def _confidence_after_retrieval(self) -> Confidence:
        if self.recipe.generation is None:
            return self._confidence_after(0)
        return dataclasses.replace(self, recipe=self.recipe.retrieving).confidence

    def _confidence_after(self, scorers: int) -> Confidence:
        """What a photo's answer is told with after the chooser and so many rankers: calibrations are for the last."""
        if scorers == len(self.recipe.rankers):
            return self.confidence
        return Confidence((self.recipe.chooser, *self.recipe.rankers)[scorers].scale(self.config))

    def _generator_stage(self) -> Stage:
        engine = self.recipe.generation.engine
        build = functools.partial(_build_generator, self, engine.key())
        if engine.kind in ("endpoint", "published"):
            return Stage(GENERATOR, build, elsewhere=True, calls=ASKING_CALLS, cpu_rows=ASKING_ROWS)
        rows = engine.batch_size
        return Stage(GENERATOR, build, cost=64.0, gpu_rows=rows, cpu_rows=rows)

    def _ranker_stage(self, number: int) -> Stage:
        ranker = self.recipe.rankers[number]
        build, at_once = functools.partial(_build_reranker, self, number), ranker.photos_at_once
        return Stage(ranker.name, build, ranker.cost, ranker.share, gpu_rows=at_once, cpu_rows=at_once)


def check(recipe: Recipe, s3: S3Options) -> None:
    """Raises UsageError for what can be told without loading models: of the recipe, its index and its calibration."""
    recipe.check(s3)
    _check_index(recipe, s3)
    if recipe.calibration:
        read_calibration(recipe.calibration, s3)
    if recipe.generation and recipe.generation.gate.calibration:
        read_calibration(recipe.generation.gate.calibration, s3, GATE_CALIBRATION)


def _check_index(recipe: Recipe, s3: S3Options) -> None:
    """Raises UsageError where an index is not what the recipe wants."""
    named = recipe.retrieval.index
    infos = check_indexes(named, recipe.encoder_config(s3), recipe.retrieval.candidates, s3)
    kinds = [info.kind if info else GALLERY for info in infos]
    if recipe.retrieval.cells and kinds != ["cells"]:
        found = "is an index of " + kinds[0] if named else "is not given"
        raise UsageError(
            f"--index {' '.join(named)}: {found}, and recipe {recipe.name} wants cells: a folder from train_geocells.py"
        )
    if len(kinds) > 1 and "cells" in kinds:
        raise UsageError(f"--index {' '.join(named)}: cells are searched alone")
    if len(set(kinds)) > 1 and recipe.chooser.pooling(s3) is None:
        raise UsageError(
            f"--index {' '.join(named)}: similarities with photos and with a gallery's coordinates do not compare; "
            "--light-ranker puts both in order"
        )


def _build_locator(options: LocatorOptions, device: str, threads: int) -> Answer:
    from geoloc.estimate.locator import Locator

    return Locator.load(options, device, threads).locate


def _build_generator(method: Method, key: SecretStr | None, device: str, threads: int) -> Answer:
    return method.load_generator(device, threads, key).generate


def spent_by(results: Folder) -> "Spending":
    """By the photos that have their results."""
    from geoloc.candidates.budget import Spending

    spending = Spending()
    for table in Parts(results).tables(["generation"]):
        for name in vars(spending):
            column = pc.struct_field(table["generation"], name)
            setattr(spending, name, getattr(spending, name) + (pc.sum(column).as_py() or 0))
    return spending


def _build_reranker(method: Method, number: int, device: str, threads: int) -> Answer:
    return method.load_reranker(number, device, threads).rerank
