"""Options that choose a recipe and change its parts. The jobs' command lines and the service's arguments have the same."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from geoloc.errors import UsageError
from geoloc.ranking.choosers import CHOOSERS, Density
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
    "skip_ranking_within_km": "skip_within_km",
}
"""Options to GeoRanker's fields."""


class RetrievalOverrides(BaseModel):
    """What a recipe's candidates come from, where it is to be other than the recipe says."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), frozen=True)

    encoder: str | None = None
    """Image encoder: geoclip, lite, or a folder from train_alignment.py (default: the recipe's)."""
    model: str | None = None
    """Another image tower for the encoder: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    index: str | None = None
    """Index folder from build_index.py (default: the encoder's own gallery of coordinates, where it has one)."""

    def change(self, recipe: Recipe) -> Recipe:
        """The recipe with these options' parts in place of its own. Raises UsageError for an option of a part that it lacks."""
        given = {name: getattr(self, name) for name in ("encoder", "model") if getattr(self, name) is not None}
        if "encoder" in given:
            given.setdefault("model", None)  # the recipe's is the other encoder's
        retrieval = recipe.retrieval
        if self.index is not None:
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
    skip_ranking_within_km: float | None = None
    """Keep the chooser's answer where the five most similar places lie within this of each other, km (default: rank all)."""

    def change(self, recipe: Recipe) -> Recipe:
        recipe = super().change(recipe)
        given = {option: getattr(self, option) for option in _RANKER if getattr(self, option) is not None}
        if given and not any(isinstance(scorer, GeoRanker) for scorer in recipe.scorers):
            option, value = next(iter(given.items()))
            raise UsageError(
                f"--{option.replace('_', '-')} {value}: recipe {recipe.name} has no GeoRanker; --recipe georanker has"
            )
        changes = {_RANKER[option]: value for option, value in given.items()}
        scorers = (dataclasses.replace(s, **changes) if isinstance(s, GeoRanker) else s for s in recipe.scorers)
        return dataclasses.replace(recipe, scorers=tuple(scorers))


class RecipeOptions(RankerOverrides):
    """A recipe, and what of it is to be otherwise."""

    recipe: str = "geoclip"
    """How photos are located: geoclip (the most similar place, by CLIP ViT-L/14 and GeoCLIP's location space), lknn (where most
    of the similar places are), georanker (a vision-language model ranks them), lite (a weak encoder that runs on any CPU);
    a .yaml file; a run's run.json, to do the same again; or package.module:function."""
    candidates: int | None = None
    """Places retrieved for a photo (default: the recipe's, 20)."""
    chooser: Literal["top1", "density", "verification"] | None = None
    """How one of them is chosen: the most similar, the densest, or the best match in location space (default: the recipe's)."""
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
        chooser = with_chooser(recipe, self.chooser, self.density_sigma_km)
        return dataclasses.replace(chooser, retrieval=retrieval, **others)


def with_chooser(recipe: Recipe, name: str | None, density_sigma_km: float | None) -> Recipe:
    """The recipe with another chooser before its rankers. Raises UsageError where there is none of that name."""
    if name is not None and name not in CHOOSERS:
        raise UsageError(f"--chooser {name}: there is {', '.join(CHOOSERS)}")
    chooser = recipe.chooser if name in (None, recipe.chooser.name) else CHOOSERS[name]()
    if density_sigma_km is not None:
        if not isinstance(chooser, Density):
            raise UsageError(
                f"--density-sigma-km {density_sigma_km:g}: is about the chooser density; add --chooser density"
            )
        chooser = Density(density_sigma_km)
    if chooser == recipe.chooser:
        return recipe
    return dataclasses.replace(recipe, scorers=(chooser, *recipe.rankers))


def vary(
    recipe: Recipe,
    choosers: Sequence[str] = (),
    candidates: Sequence[int] = (),
    parts: Sequence[str] = (),
    density_sigma_km: float | None = None,
) -> list[Recipe]:
    """The recipe in every combination of these, each named after what it is; itself where there are none. Raises UsageError.

    >>> from geoloc.recipes.named import lite
    >>> [found.name for found in vary(lite(), ["top1", "density"], [5])]
    ['lite: top1 of 5', 'lite: density of 5']
    """
    varied = []
    for chooser, which, count in itertools.product(choosers or [None], parts or [None], candidates or [None]):
        sigma_km = density_sigma_km if (chooser or recipe.chooser.name) == Density.name else None
        found = with_chooser(recipe, chooser, sigma_km)
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
