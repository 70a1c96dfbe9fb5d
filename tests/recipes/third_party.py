"""A researcher's own ranker, as it would be in a package of his: nothing in geoloc/ knows of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from geoloc.errors import PhotoError
from geoloc.photos.views import AreaView
from geoloc.ranking.choosers import Top1
from geoloc.ranking.query import RankQuery
from geoloc.ranking.scorers import Ranker, RankerFacts, RankOptions
from geoloc.recipes.named import lite
from geoloc.recipes.recipe import Recipe
from geoloc.storage import S3Options

VIEW = AreaView(factor=28, min_pixels=28 * 28, max_pixels=4 * 28 * 28)
NORTH = "tests.recipes.third_party:North"


@dataclass(frozen=True)
class North(Ranker):
    """The brighter the picture, the farther north it was taken."""

    name: ClassVar[str] = "north"
    bias: float = 0.0
    most: int | None = None

    def probe(self, s3: S3Options) -> RankerFacts:
        return RankerFacts(VIEW, "north-1")

    def load(self, s3: S3Options, device: str, threads: int) -> "Brightness":
        return Brightness(self.bias)

    def options(self, candidates: int, s3: S3Options) -> RankOptions:
        return RankOptions(min(candidates, self.most or candidates))


class Brightness:
    def __init__(self, bias: float) -> None:
        self._bias = bias

    def rank(self, queries: Sequence[RankQuery]) -> list[np.ndarray | PhotoError]:
        return [self._scores(query) for query in queries]

    def _scores(self, query: RankQuery) -> np.ndarray:
        lat = np.array([candidate.place.lat for candidate in query.candidates], np.float32)
        return -np.abs(lat - self._bias - query.picture.mean() / 255 * 90) / 10


def north() -> Recipe:
    return dataclasses.replace(lite(), name="north", scorers=(Top1(), North(5.0)))


@dataclass(frozen=True)
class Nameless(North):
    name: ClassVar[str | None] = None
