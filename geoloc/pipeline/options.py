"""Options that jobs share. Reading them needs no Ray."""

import dataclasses
from dataclasses import dataclass

from geoloc.errors import UsageError
from geoloc.photos.decode import View
from geoloc.photos.fetch import FetchOptions
from geoloc.photos.load import LoadOptions
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
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise UsageError(f"--{field.name.replace('_', '-')} {getattr(self, field.name)}: must be above 0")

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
