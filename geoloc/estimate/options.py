"""What a locator, and a comparison of several, are made of."""

from dataclasses import dataclass

from geoloc.encoders.presets import PARTS, Preset
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import Calibration
from geoloc.storage import Folder


@dataclass(frozen=True)
class LocatorOptions:
    preset: Preset
    index: Folder
    candidates: int = 20
    chooser: str = "top1"
    density_sigma_km: float = 445.0
    parts: tuple[str, ...] = PARTS
    calibration: Calibration | None = None
    abstention: Abstention | None = None
    ranked: bool = False
    """Whether the answers are not the last word, and a Reranker follows."""


@dataclass(frozen=True)
class Configuration:
    chooser: str
    candidates: int
    parts: tuple[str, ...] = PARTS
    """Of an aligned vector, that similarity is taken of."""

    @property
    def name(self) -> str:
        which = "" if self.parts == PARTS else f" by {'+'.join(self.parts)}"
        return f"{self.chooser} of {self.candidates}{which}"


@dataclass(frozen=True)
class ComparisonOptions:
    preset: Preset
    index: Folder
    configurations: tuple[Configuration, ...]
    density_sigma_km: float = 445.0
    ten_crop: bool = False
