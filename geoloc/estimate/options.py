"""What a locator, and a comparison of several, are made of."""

from dataclasses import dataclass, field

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import PARTS, EncoderConfig
from geoloc.estimate.confidence import Confidence
from geoloc.ranking.choosers import Top1
from geoloc.ranking.scorers import Chooser
from geoloc.storage import Folder


@dataclass(frozen=True)
class LocatorOptions:
    config: EncoderConfig
    indexes: tuple[Folder, ...]
    candidates: int = 20
    chooser: Chooser = field(default_factory=Top1)
    parts: tuple[str, ...] = PARTS
    """Of an aligned vector, that similarity is taken of."""
    pooling: Pooling | None = None
    """How what is found is gathered to places; None for candidates as they are found, in one index."""
    confidence: Confidence | None = None
    """None for the chooser's, uncalibrated."""
    ranked: bool = False
    """Whether the answers are not the last word, and a Reranker follows."""
    asked: bool = False
    """Whether a Generator follows, which asks a model for more candidates."""
    dissimilar: int = 0
    """References least similar to a photo, that it tells the model of."""


@dataclass(frozen=True)
class ComparisonOptions:
    locators: tuple[LocatorOptions, ...]
    """Of one encoder; an answer's column has its locator's number."""
    ten_crop: bool = False
