"""What a locator is made of."""

from dataclasses import dataclass

from geoloc.encoders.presets import Preset
from geoloc.storage import Folder


@dataclass(frozen=True)
class LocatorOptions:
    preset: Preset
    index: Folder
    candidates: int = 20
    chooser: str = "top1"
    density_sigma_km: float = 445.0
