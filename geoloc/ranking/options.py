"""What a ranker is, and how it is asked. Reading it needs no torch."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from geoloc.errors import UsageError
from geoloc.storage import Folder, describe

if TYPE_CHECKING:
    from geoloc.ranking.hub import HubFolder

CONFIG, ADAPTER = ADAPTER_FILES = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's files of an adapter."""
PROMPT = "ranker.json"
"""In an adapter's folder: how that ranker was asked when it learned."""


@dataclass(frozen=True)
class PromptOptions:
    template: Literal["georanker", "shared_prefix"] = "shared_prefix"
    """Order of the prompt's parts: georanker as published, or shared_prefix, which is several times cheaper to score."""
    negatives: int = 5
    """Places where the photo is not, told in the prompt: the last of the retrieved ones (0: none)."""
    words: bool = True
    """Tell a candidate's city, region and country."""
    pictures: bool = True
    """Show a candidate's photo."""
    min_pixels: int = 4 * 28 * 28
    """Smaller pictures are scaled up to this area."""
    max_pixels: int = 256 * 28 * 28
    """Larger pictures are scaled down to this area: 784 pixels are a token, so 256 tokens a picture."""

    def check(self) -> None:
        """Raises UsageError."""
        if self.negatives < 0:
            raise UsageError(f"--negatives {self.negatives}: must not be below 0")
        if not 0 < self.min_pixels <= self.max_pixels:
            raise UsageError(
                f"--min-pixels {self.min_pixels}: must be above 0 and not above --max-pixels {self.max_pixels}"
            )


RELEASED = PromptOptions("georanker")
"""How GeoRanker's released adapter was asked, but for the number of pixels, which it did not limit."""


def prompt_of(adapter: "Folder | HubFolder") -> PromptOptions:
    """What a ranker's adapter says of itself; one that says nothing is GeoRanker's own. Raises UsageError."""
    try:
        return PromptOptions(**json.loads(adapter.read(PROMPT)))
    except FileNotFoundError:
        return RELEASED
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--ranker-adapter {adapter.uri}: cannot read {PROMPT} ({describe(error)})") from error


def write_prompt(folder: Folder, prompt: PromptOptions) -> None:
    folder.write(PROMPT, json.dumps(dataclasses.asdict(prompt), indent=1).encode())


@dataclass(frozen=True)
class RankerOptions:
    model: str
    """A Qwen2-VL folder, or its name on the model hub."""
    adapter: "Folder | HubFolder | None" = None
    prompt: PromptOptions = field(default_factory=PromptOptions)
    cache_gb: float = 2.0
    """Memory for the features of reference photos, which are kept from photo to photo, GB (2^30 bytes)."""


PICTURE_PX = 448
"""Longest side of the pictures that an index and a training set hold, unless another is asked for."""


def part_rows(picture_px: int, most: int) -> int:
    """Rows of a part that is held in memory, pictures and all: ``most``, and fewer of larger pictures."""
    share = (PICTURE_PX / picture_px) ** 2 if picture_px else 1 / 64
    return max(16, int(most * min(1.0, share)))


TWIN_KM = 1.0


@dataclass(frozen=True)
class GeoRankingOptions:
    references: int = 20
    """Places retrieved for a photo, never the photo itself."""
    ranked: int = 7
    """Of them, the most similar: what the ranker learns to rank, with their pictures."""
    distance: Literal["geodesic", "haversine"] = "geodesic"
    """On the WGS84 ellipsoid, or on a sphere."""
    picture_px: int = PICTURE_PX
    """Longest side of the pictures kept for the ranker, of photos and references (0: their own size, as published)."""
    twin_cosine: float | None = None
    """Leave out references within 1 km of a photo whose cosine with it is at least this, such as 0.95: pictures of one
    moment teach a ranker to look for duplicates (default: leave out the photo itself alone)."""

    def check(self) -> None:
        """Raises UsageError."""
        if not 1 <= self.ranked <= self.references:
            raise UsageError(f"--ranked {self.ranked}: must be from 1 to --references {self.references}")
        if self.picture_px < 0:
            raise UsageError(f"--picture-px {self.picture_px}: must not be below 0")
        if self.twin_cosine is not None and not -1 <= self.twin_cosine <= 1:
            raise UsageError(f"--twin-cosine {self.twin_cosine}: must be from -1 to 1")
