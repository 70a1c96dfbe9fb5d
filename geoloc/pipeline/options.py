"""Options that jobs share. Reading them needs no Ray."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.errors import UsageError
from geoloc.photos.decode import View
from geoloc.photos.fetch import FetchOptions
from geoloc.photos.load import LoadOptions
from geoloc.ranking.choosers import check_chooser
from geoloc.schema import MAX_CANDIDATES
from geoloc.storage import S3Options

SOURCE_SETTINGS = ("source", "relocate", "max_photo_mb", "max_megapixels")
"""Settings of a run that decide which photos are located, and not what is said of them."""


@dataclass(frozen=True)
class PhotoOptions:
    max_photo_mb: float = 64
    """Largest file that is fetched, MB (2^20 bytes); a larger one fails as too_large."""
    max_megapixels: float = 200
    """Largest picture that is decoded, millions of pixels; a larger one fails as too_many_pixels."""
    fetch_concurrency: int = 32
    """Requests under way at once, a loading task."""

    def check(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be above 0")

    def load_options(self, view: View, s3: S3Options, **others: object) -> LoadOptions:
        fetch = FetchOptions(int(self.max_photo_mb * 2**20), self.fetch_concurrency, s3=s3)
        return LoadOptions(view, fetch, int(self.max_megapixels * 1e6), **others)


@dataclass(frozen=True)
class ClusterOptions:
    gpus: int | None = None
    """GPUs to use in all (default: those the cluster has; 0: run the models on CPUs)."""
    gpus_per_actor: int = 1
    """GPUs that share one copy of the index, where it does not fit on one."""
    batch_size: int | None = None
    """Photos the models take at once (default: 256 on a GPU, 16 a CPU core)."""
    wait_minutes: float = 0
    """How long to wait for the cluster to grow to what the plan needs, minutes."""


def parse_parts(text: str, models: Preset) -> tuple[str, ...]:
    """Of ``image+location``. Raises UsageError."""
    parts = tuple(text.split("+"))
    if models.alignment is None:
        raise UsageError(f"--parts {text}: preset {models.name} has one part only; use a trained alignment")
    if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise UsageError(f"--parts {text}: there is {', '.join(PARTS)}, to be joined by +")
    return tuple(part for part in PARTS if part in parts)


@dataclass(frozen=True)
class LocateOptions:
    images: str | None = None
    """Where the truth's photos are (s3:// prefix, folder, or table with a column `uri`): locate them, with every
    combination of --choosers and --candidates, and judge those answers too."""
    index: str | None = None
    """Index folder from build_index.py (default: the preset's own gallery of coordinates, where it has one)."""
    preset: str = "geoclip"
    """Models: geoclip, lite, or a folder from train_alignment.py."""
    model: str | None = None
    """Another image tower for the preset: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    choosers: tuple[str, ...] = ()
    """Ways of choosing to compare (default: all that the preset can serve)."""
    candidates: tuple[int, ...] = (20,)
    """Numbers of places retrieved, to compare."""
    parts: tuple[str, ...] = ()
    """Parts of an aligned vector to compare, joined by +, such as image image+location image+text+location (default: all
    three together)."""
    density_sigma_km: float = 445
    """Width of the density chooser's kernel, km."""
    ten_crop: bool = False
    """Average similarities over ten crops of every photo (five, and their mirror images), as papers do."""
    photos: Annotated[PhotoOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=PhotoOptions)
    cluster: Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ClusterOptions)

    def vector_parts(self, models: Preset) -> list[tuple[str, ...]]:
        """Raises UsageError for parts that there are not."""
        return [parse_parts(text, models) for text in self.parts] or [PARTS]

    def check(self, s3: S3Options) -> None:
        """Raises UsageError for what can be told without looking at any photo."""
        self.photos.check()
        models = preset(self.preset, self.model, s3)
        self.vector_parts(models)
        for chooser in self.choosers:
            check_chooser(chooser, models)
        for count in self.candidates:
            if not 1 <= count <= MAX_CANDIDATES:
                raise UsageError(f"--candidates {count}: must be from 1 to {MAX_CANDIDATES}")
        if self.density_sigma_km <= 0:
            raise UsageError(f"--density-sigma-km {self.density_sigma_km}: must be above 0")
