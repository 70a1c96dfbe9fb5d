"""What a ranker is asked: a photo's picture, and the places that it might be. Without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geoloc.ranking.prompt import PromptPlace


@dataclass(frozen=True)
class RankCandidate:
    place: PromptPlace
    image: bytes | np.ndarray | None = None
    """A picture file of the place, or what the ranker's view made of it; None where there is none."""
    key: int | None = None
    """Of the image among all that a ranker is shown, such as its row of the index: its features may be kept under it."""


@dataclass(frozen=True)
class RankQuery:
    picture: np.ndarray
    """(h, w, 3) uint8, as the ranker's view made it."""
    candidates: Sequence[RankCandidate]
    negatives: Sequence[PromptPlace] = ()
