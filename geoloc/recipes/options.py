"""Options that choose a recipe and change its parts. The jobs' command lines and the service's arguments have the same."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from geoloc.candidates.options import Prices
from geoloc.errors import UsageError
from geoloc.ranking.choosers import CHOOSERS, Density, Light
from geoloc.ranking.rankers import GeoRanker
from geoloc.recipes.reading import read_recipe
from geoloc.recipes.recipe import Recipe
from geoloc.storage import S3Options

_RANKER = {
    "ranker_model": "model",
    "ranker_adapter": "adapter",
    "ranker_candidates": "candidates",
    "ranker_max_pixels": "max_pixels",
    "ranker_cache_gb": "cache_gb",
    "enrich_generated": "enrich_generated",
    "skip_ranking_within_km": "skip_within_km",
    "heavy_gate": "gate",
    "heavy_share": "gate_share",
    "heavy_risk": "gate_risk",
}
"""Options to GeoRanker's fields."""


class RetrievalOverrides(BaseModel):
    """What a recipe's candidates come from, where it is to be other than the recipe says."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

    encoder: str | None = None
    """Image encoder: geoclip, siglip2, lite, or a folder from train_alignment.py (default: the recipe's)."""
    model: str | None = None
    """Another image tower for the encoder: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    index: tuple[str, ...] = ()
    """From build_index.py (several are pooled), `gallery` (the encoder's own, the default), `self` (an archive's photos with GPS)."""

    @field_validator("index", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else () if value is None else value

    def change(self, recipe: Recipe) -> Recipe:
        """The recipe with these options' parts in place of its own. Raises UsageError for an option of a part that it lacks."""
        given = {name: getattr(self, name) for name in ("encoder", "model") if getattr(self, name) is not None}
        if "encoder" in given:
            given.setdefault("model", None)  # the recipe's is the other encoder's
        retrieval = recipe.retrieval
        if self.index:
            retrieval = dataclasses.replace(retrieval, index=self.index)
        return dataclasses.replace(recipe, retrieval=retrieval, **given)


class RankerOverrides(RetrievalOverrides):
    """The same, and of a recipe's ranker."""

    ranker_model: str | None = None
    """GeoRanker's base model: a Qwen2-VL folder that every node has, or its name on the model hub."""
    ranker_adapter: str | None = None
    """Its adapter: a folder from train_ranker.py, s3:// or local; GeoRanker's released one; or a name on the model hub."""
    ranker_candidates: int | None = None
    """How many of the retrieved places it ranks (default: all but those that its prompt tells as negatives)."""
    ranker_max_pixels: int | None = None
    """Area that pictures are scaled down to for it; 784 pixels are a token (default: what it was trained with, or 200704)."""
    ranker_cache_gb: float | None = None
    """Memory of each ranker for features of reference photos, GB (2^30 bytes; default: 2)."""
    enrich_generated: bool | None = None
    """Tell it more of generated places than coordinates: their names, and the picture of a reference within a kilometre."""
    skip_ranking_within_km: float | None = None
    """Keep the chooser's answer where the five most similar places lie within this of each other, km (default: rank all)."""
    heavy_gate: str | None = None
    """gate.json from train_gate.py, or the folder with it: GeoRanker ranks those photos alone of which it promises something, as
    many as --heavy-share or --heavy-risk say."""
    heavy_share: float | None = None
    """Of the photos, to rank with it."""
    heavy_risk: float | None = None
    """Points of accuracy at 25 km that may be lost, with a probability of 95 %, against ranking all: as few are ranked as that allows."""

    def change(self, recipe: Recipe) -> Recipe:
        recipe = super().change(recipe)
        given = {option: getattr(self, option) for option in _RANKER if getattr(self, option) is not None}
        if given and not any(isinstance(scorer, GeoRanker) for scorer in recipe.scorers):
            option, value = next(iter(given.items()))
            raise UsageError(
                f"--{option.replace('_', '-')} {value}: recipe {recipe.name} has no GeoRanker; --recipe georanker-retrieved has"
            )
        changes = {_RANKER[option]: value for option, value in given.items()}
        scorers = (dataclasses.replace(s, **changes) if isinstance(s, GeoRanker) else s for s in recipe.scorers)
        return dataclasses.replace(recipe, scorers=tuple(scorers))


_GENERATION = {
    "prompts": "prompts",
    "generated_candidates": "candidates",
    "merge_candidates_within_km": "merge_within_km",
    "keep_reasons": "keep_reasons",
    "reply_cache": "cache",
    "generation_budget": "budget",
}
_PARTS = {
    "engine": {
        "generator": "kind",
        "generator_model": "model",
        "generator_endpoint": "endpoint",
        "generator_replies": "replies",
        "generator_image_px": "image_px",
        "generator_concurrency": "concurrency",
        "generator_requests_per_minute": "requests_per_minute",
        "generator_timeout_s": "timeout_s",
        "generator_batch_size": "batch_size",
    },
    "sampling": {
        "generator_temperature": "temperature",
        "generator_top_p": "top_p",
        "generator_max_tokens": "max_tokens",
        "generator_seed": "seed",
    },
    "gate": {
        "generate_beyond_km": "beyond_km",
        "generate_below_confidence": "below_confidence",
        "generate_calibration": "calibration",
        "generate_share": "share",
    },
}
"""Options to the fields of Generation and of its parts."""


class GeneratorOverrides(RankerOverrides):
    """The same, and of a recipe's candidates from a vision-language model."""

    generator: Literal["endpoint", "transformers", "vllm", "published"] | None = None
    """Who generates candidates: an endpoint that speaks OpenAI's protocol, a model in this job's own processes (transformers, vllm),
    or a paper's published table in its place (default: the recipe's, endpoint)."""
    generator_endpoint: str | None = None
    """Its base URL, such as https://api.openai.com/v1. Photos are sent there, scaled down. Its key is read from the environment
    (GEOLOC_GENERATOR_KEY; OPENAI_API_KEY for OpenAI's own)."""
    generator_model: str | None = None
    """The model, as the endpoint calls it; or a folder that every node has, or a name on the model hub."""
    generator_replies: str | None = None
    """Published candidates, .csv: zs_gps_lis as GeoRanker's, or zs_0_latitude, 5_rag_0_latitude … as G3's."""
    prompts: tuple[str, ...] | None = None
    """What it is asked: zero-shot, references-N (with the N most and least similar places), img2loc, choose, reasoned (default: the
    recipe's)."""
    generated_candidates: int | None = None
    """Replies to each prompt (default: the recipe's)."""
    merge_candidates_within_km: float | None = None
    """Take a generated candidate for the same as one before it that is so near, km (default: 0.1)."""
    keep_reasons: bool | None = None
    """Keep what it says of a candidate beside its place, as text."""
    generate_beyond_km: float | None = None
    """Ask about photos alone whose five most similar places lie farther apart than this, km (default: ask about all)."""
    generate_below_confidence: float | None = None
    """Ask about photos alone that retrieval is less sure of than this."""
    generate_calibration: str | None = None
    """calibration.json of the same recipe without generation, which makes that a probability (error below 25 km)."""
    generate_share: float | None = None
    """Ask about this share of the photos alone, drawn by their ids: a trial (default: 1)."""
    generator_prices: tuple[float, float] | None = None
    """Of a million tokens of prompts and of replies, in any currency: what a run costs is told with them."""
    generation_budget: float | None = None
    """Stop before this much is spent on a run in all; the same command with more goes on."""
    reply_cache: str | None = None
    """Folder of replies, s3:// or local, for several runs: none is asked, and paid, for twice (default: OUTPUT/replies)."""
    generator_temperature: float | None = None
    """Of sampling (default: the recipe's, 1.2 as published)."""
    generator_top_p: float | None = None
    """Of sampling (default: the model's own)."""
    generator_max_tokens: int | None = None
    """Of a reply (default: the recipe's, 200 as published)."""
    generator_seed: int | None = None
    """Of sampling, for engines that know seeds (default: none)."""
    generator_image_px: int | None = None
    """Longest side of the picture that is sent (default: 512)."""
    generator_concurrency: int | None = None
    """Requests under way at once (default: 64)."""
    generator_requests_per_minute: float | None = None
    """At most (default: no limit)."""
    generator_timeout_s: float | None = None
    """For an answer, seconds (default: 120)."""
    generator_batch_size: int | None = None
    """Photos that a model in this job's own processes takes at once (default: 8)."""

    def change(self, recipe: Recipe) -> Recipe:
        recipe = super().change(recipe)
        names = [*_GENERATION, *(option for part in _PARTS.values() for option in part), "generator_prices"]
        given = [name for name in names if getattr(self, name) is not None]
        if not given:
            return recipe
        if recipe.generation is None:
            option, value = given[0].replace("_", "-"), getattr(self, given[0])
            raise UsageError(
                f"--{option} {value}: recipe {recipe.name} asks no model for candidates; --recipe georanker, g3, img2loc and "
                "prompting do"
            )
        generation = recipe.generation
        changes = {field: getattr(self, name) for name, field in _GENERATION.items() if name in given}
        for part, fields in _PARTS.items():
            new = {field: getattr(self, name) for name, field in fields.items() if name in given}
            changes[part] = dataclasses.replace(getattr(generation, part), **new)
        if self.generator_prices is not None:
            changes["prices"] = Prices(*self.generator_prices)
        return dataclasses.replace(recipe, generation=dataclasses.replace(generation, **changes))


class RecipeOptions(GeneratorOverrides):
    """A recipe, and what of it is to be otherwise."""

    recipe: str = "geoclip"
    """How photos are located: geoclip (the most similar place, by CLIP ViT-L/14 and GeoCLIP's location space), lknn (where most
    similar places are), light (by each place's evidence), georanker-retrieved (a vision-language model ranks them), lite (a weak
    encoder for any CPU); georanker, georanker-yfcc4k, g3, img2loc and prompting ask a vision-language model for candidates too; a .yaml file; a run's
    run.json, to do the same again; or package.module:function."""
    candidates: int | None = None
    """Places retrieved for a photo (default: the recipe's, 20)."""
    chooser: Literal["top1", "density", "verification", "generated", "light"] | None = None
    """How one of them is chosen: the most similar, the densest, the best match in location space, what a model says that is asked
    for candidates, or what a light ranker says (default: the recipe's)."""
    light_ranker: str | None = None
    """Folder from train_light.py: a small network puts places in order by their evidence, from the indexes that it learned with."""
    density_sigma_km: float | None = None
    """Width of the density chooser's kernel, km (default: 445)."""
    parts: str | None = None
    """Parts of an aligned vector that references are found by, joined by +, such as image+location (default: all)."""
    calibration: str | None = None
    """calibration.json from calibrate.py, or the folder with it: confidences become probabilities. Results that are there
    already are brought up to date, without locating again."""
    min_confidence: str | None = None
    """Answer only where the probability of an error below a threshold is high enough, such as 25km:0.5; other photos are
    `uncertain`, with the estimate kept aside. Needs --calibration."""

    def read(self, s3: S3Options) -> Recipe:
        """The recipe, changed as they say, but not checked. Raises UsageError."""
        return self.change(read_recipe(self.recipe, s3))

    def change(self, recipe: Recipe) -> Recipe:
        recipe = super().change(recipe)
        retrieval = {n: getattr(self, n) for n in ("candidates", "parts") if getattr(self, n) is not None}
        others = {n: getattr(self, n) for n in ("calibration", "min_confidence") if getattr(self, n) is not None}
        retrieval = dataclasses.replace(recipe.retrieval, **retrieval)
        chooser = with_chooser(recipe, self.chooser, self.density_sigma_km, self.light_ranker)
        return dataclasses.replace(chooser, retrieval=retrieval, **others)


def with_chooser(
    recipe: Recipe, name: str | None, density_sigma_km: float | None = None, light_ranker: str | None = None
) -> Recipe:
    """The recipe with another chooser before its rankers; a light ranker's folder, by itself, names one.

    Raises UsageError where there is none of that name, or an option is about another one.
    """
    name = Light.name if name is None and light_ranker is not None else name
    if name is not None and name not in CHOOSERS:
        raise UsageError(f"--chooser {name}: there is {', '.join(CHOOSERS)}")
    chooser = recipe.chooser if name in (None, recipe.chooser.name) else CHOOSERS[name]()
    if density_sigma_km is not None:
        if not isinstance(chooser, Density):
            raise UsageError(
                f"--density-sigma-km {density_sigma_km:g}: is about the chooser density; add --chooser density"
            )
        chooser = Density(density_sigma_km)
    if light_ranker is not None:
        if not isinstance(chooser, Light):
            raise UsageError(f"--light-ranker {light_ranker}: is about the chooser light, not {chooser.name}")
        chooser = Light(light_ranker)
    if chooser == recipe.chooser:
        return recipe
    return dataclasses.replace(recipe, scorers=(chooser, *recipe.rankers))


def vary(
    recipe: Recipe,
    choosers: Sequence[str] = (),
    candidates: Sequence[int] = (),
    parts: Sequence[str] = (),
    density_sigma_km: float | None = None,
    light_ranker: str | None = None,
) -> list[Recipe]:
    """The recipe in every combination of these, each named after what it is; itself where there are none. Raises UsageError.

    >>> from geoloc.recipes.named import lite
    >>> [found.name for found in vary(lite(), ["top1", "density"], [5])]
    ['lite: top1 of 5', 'lite: density of 5']
    """
    varied = []
    for chooser, which, count in itertools.product(choosers or [None], parts or [None], candidates or [None]):
        sigma_km = density_sigma_km if (chooser or recipe.chooser.name) == Density.name else None
        light = light_ranker if (chooser or recipe.chooser.name) == Light.name else None
        found = with_chooser(recipe, chooser, sigma_km, light)
        retrieval = found.retrieval
        retrieval = dataclasses.replace(
            retrieval,
            candidates=retrieval.candidates if count is None else count,
            parts=retrieval.parts if which is None else which,
        )
        name = recipe.name
        if (found.scorers, retrieval) != (
            recipe.scorers,
            recipe.retrieval,
        ):  # a calibration is about the recipe as it was
            found = dataclasses.replace(found, calibration=None, min_confidence=None)
        if choosers or candidates or parts:
            name += f": {found.chooser.name} of {retrieval.candidates}{f' by {which}' if which else ''}"
        varied.append(dataclasses.replace(found, name=name, retrieval=retrieval))
    return varied
