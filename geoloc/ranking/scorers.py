"""What puts a photo's candidates in order, as a recipe names it: plain data that knows how it is loaded. Without torch."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import EncoderConfig
from geoloc.errors import PhotoError
from geoloc.photos.views import AreaView
from geoloc.ranking.candidates import Candidates
from geoloc.storage import S3Options

if TYPE_CHECKING:
    from geoloc.estimate.gate import Worth
    from geoloc.index.store import IndexInfo
    from geoloc.ranking.query import RankQuery

Score = Callable[[np.ndarray, Candidates], np.ndarray]
"""Vectors (n, d) of photos and their candidates to scores (n, k) float32, highest first; -inf where there is no candidate."""


@dataclass(frozen=True)
class Scorer:
    """A subclass is a frozen dataclass, whose fields a recipe's file gives, of strings, numbers and None."""

    name: ClassVar[str]
    """As it is called in recipes' files, in the results' ``method`` and in settings."""
    paths: ClassVar[tuple[str, ...]] = ()
    """Fields that may name folders or files."""

    def check(self, config: EncoderConfig, candidates: int, s3: S3Options) -> None:
        """Raises UsageError where it cannot serve an encoder, or a photo's so many candidates; before any is loaded."""
        return

    def pinned(self, s3: S3Options) -> Self:
        """With what may change elsewhere fixed, such as a model hub's revision: many processes will load it. Raises UsageError."""
        return self

    def scale(self, config: EncoderConfig) -> float:
        """``softmax(scale * scores)`` weighs a photo's candidates against each other."""
        return 1.0

    def settings(self, candidates: int, s3: S3Options) -> dict:
        """What of it decides results, beside its weights: a run goes on only with the same."""
        return dataclasses.asdict(self)


class Chooser(Scorer, ABC):
    """Works on vectors and coordinates, where candidates are retrieved; costs next to nothing."""

    @abstractmethod
    def load(self, config: EncoderConfig, device: str, s3: S3Options) -> Score: ...

    def pooling(self, s3: S3Options) -> Pooling | None:
        """How it wants candidates to be gathered to places; None for as they are found. Raises UsageError."""
        return None

    def check_indexes(self, infos: "Sequence[IndexInfo]", candidates: int, s3: S3Options) -> None:
        """Raises UsageError where it cannot serve candidates from them."""
        return


@dataclass(frozen=True)
class RankerFacts:
    view: AreaView
    """What it looks at of a photo."""
    fingerprint: str
    """Of its weights: two rankers with the same, and the same settings, give the same scores."""


@dataclass(frozen=True)
class RankOptions:
    """Which of a photo's candidates are ranked, and which it is not, as its prompts tell."""

    ranked: int
    """The most similar."""
    negatives: int = 0
    """The least similar, told as places where the photo is not."""
    template: str = "shared_prefix"
    """The prompt's (geoloc.ranking.prompt), which decides whether a ranked candidate may be a negative."""
    skip_within_km: float | None = None
    """Leave the order as it is where the first five candidates lie within this of each other."""
    enrich_generated: bool = False
    """Tell of a generated candidate the names of its place, and show the nearest reference's picture, beside its coordinates."""


class Rank(Protocol):
    """A ranker whose models have been loaded."""

    def rank(self, queries: "Sequence[RankQuery]") -> list[np.ndarray | PhotoError]:
        """For each photo the scores (c,) of its candidates, float32, highest is nearest; or what is wrong with it."""
        ...


class Ranker(Scorer, ABC):
    """Looks at a photo's picture and at its candidates, with models of its own: a stage on devices of its own."""

    cost: ClassVar[float] = 16.0
    """Of a device's time for a photo, in units of what encoding and retrieving it cost."""
    share: ClassVar[float] = 1.0
    """Of a device that it has together with other stages; retrieval has 0.25."""
    photos_at_once: ClassVar[int] = 16

    @abstractmethod
    def probe(self, s3: S3Options) -> RankerFacts:
        """Look at its models without loading them. Raises UsageError where they cannot be had."""

    @abstractmethod
    def load(self, s3: S3Options, device: str, threads: int) -> Rank: ...

    def worth(self, s3: S3Options) -> "Worth | None":
        """Which photos are worth its price; None for all. Raises UsageError."""
        return None

    def options(self, candidates: int, s3: S3Options) -> RankOptions:
        """For photos with so many candidates. Raises UsageError."""
        return RankOptions(candidates)
