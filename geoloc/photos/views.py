"""What models, and people, look at: pixels of a photo, and not one more."""

import io
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from geoloc.errors import PhotoError

JPEG_QUALITY = 75
"""Of pictures that are kept, as of those that GeoRanker's released code makes (Pillow's own choice)."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Picture:
    """A photo's pixels, or those of a smaller version of it."""

    image: Image.Image
    """RGB, upright."""
    size: tuple[int, int]
    """Of the photo, width and height."""
    box: Box
    """Where the photo lies in the image; a smaller version may begin or end within a pixel."""

    @classmethod
    def of(cls, image: Image.Image) -> "Picture":
        """Of a photo's own pixels."""
        return cls(image, image.size, (0, 0, *image.size))

    def resized(
        self, size: tuple[int, int], box: Box | None = None, resample: Image.Resampling = Image.Resampling.BICUBIC
    ) -> Image.Image:
        """What is in ``box``, in pixels of the photo, scaled to ``size``; the whole photo without it.

        As Pillow does it: with antialiasing, and what lies outside the box plays no part.
        """
        left, top, right, bottom = box or (0, 0, *self.size)
        x, y = self.box[:2]
        across, down = (self.box[2] - x) / self.size[0], (self.box[3] - y) / self.size[1]
        end = min(x + right * across, self.image.width), min(y + bottom * down, self.image.height)
        return self.image.resize(size, resample, box=(x + left * across, y + top * down, *end))


TEN_CROP_MARGIN = 8 / 7
"""224 pixels are cut from 256, 336 from 384."""


@dataclass(frozen=True)
class View:
    """What a model wants to see: ``size`` x ``size`` pixels (open_clip's ``preprocess_cfg``)."""

    size: int
    mode: str = "shortest"
    """``shortest``: scale the shortest side to ``size``, cut the middle; ``squash``: ignore the aspect ratio."""
    interpolation: str = "bicubic"
    crop: str = "torchvision"
    """Where the middle begins that is a fraction of a pixel off: ``torchvision`` (open_clip) rounds half to even,
    ``transformers`` down, a pixel apart for every fourth width."""
    ten_crop: bool = field(default=False, repr=False)
    """Five crops (corners, then middle) of the picture at 8/7 of the size; mirroring them makes ten. The encoder is the
    same, so it is no part of what the view is called."""

    def scale(self, width: int, height: int) -> float:
        """The part of a photo's resolution that this view needs."""
        return self._side / min(width, height)

    def pixels(self, picture: Picture) -> bytes:
        """uint8, (size, size, 3), or (5, size, size, 3) with ten crops."""
        middle = self.of(picture)
        if not self.ten_crop:
            return middle.tobytes()
        width, height = self._resized(picture)
        right, bottom = width - self.size, height - self.size
        corners = [self._crop(picture, *corner) for corner in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
        return b"".join(crop.tobytes() for crop in (*corners, middle))

    def of(self, picture: Picture) -> Image.Image:
        """Equal to open_clip's, or transformers', resize and centre crop, but scaling only what is kept."""
        left, top = ((side - self.size) / 2 for side in self._resized(picture))
        begin = math.floor if self.crop == "transformers" else round
        return self._crop(picture, begin(left), begin(top))

    @property
    def _side(self) -> int:
        """What the shortest side is scaled to."""
        return round(self.size * TEN_CROP_MARGIN) if self.ten_crop else self.size

    def _resized(self, picture: Picture) -> tuple[int, int]:
        """What the photo is scaled to, before crops are cut."""
        if self.mode == "squash":
            return self._side, self._side
        width, height = picture.size
        return int(self._side * width / min(width, height)), int(self._side * height / min(width, height))

    def _crop(self, picture: Picture, left: int, top: int) -> Image.Image:
        """``size`` x ``size`` pixels of the scaled photo."""
        width, height = self._resized(picture)
        across, down = picture.size[0] / width, picture.size[1] / height
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        return picture.resized((self.size, self.size), box, Image.Resampling[self.interpolation.upper()])


MAX_RATIO = 200
"""Of the longer side to the shorter, that an AreaView takes."""


@dataclass(frozen=True)
class AreaView:
    """What a model that takes pictures of any shape wants to see: sides that are multiples of ``factor``, and an area of
    ``min_pixels`` to ``max_pixels`` (qwen-vl-utils' ``smart_resize``)."""

    factor: int
    min_pixels: int
    max_pixels: int

    def takes(self, width: int, height: int) -> bool:
        return max(width, height) <= MAX_RATIO * min(width, height)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """What a picture is scaled to. Raises PhotoError of the kind ``too_narrow``."""
        if not self.takes(width, height):
            raise PhotoError("too_narrow", f"{width} x {height}: one side is over {MAX_RATIO} times the other")
        sides = width, height
        scaled = [max(self.factor, round(side / self.factor) * self.factor) for side in sides]
        if math.prod(scaled) > self.max_pixels:
            beta = math.sqrt(width * height / self.max_pixels)
            scaled = [max(self.factor, math.floor(side / beta / self.factor) * self.factor) for side in sides]
        elif math.prod(scaled) < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (width * height))
            scaled = [math.ceil(side * beta / self.factor) * self.factor for side in sides]
        return scaled[0], scaled[1]

    def scale(self, width: int, height: int) -> float:
        """The part of a photo's resolution that this view needs."""
        wide, high = self.size(width, height)
        return max(wide / width, high / height)

    def of(self, picture: Picture) -> np.ndarray:
        """uint8, (height, width, 3)."""
        return np.asarray(picture.resized(self.size(*picture.size)))


def thumbnail_scale(width: int, height: int, longest: int) -> float:
    """The part of a photo's resolution that ``thumbnail`` needs."""
    return min(1.0, longest / max(width, height)) if longest else 1.0


def thumbnail(picture: Picture, longest: int) -> bytes:
    """A JPEG whose longest side has at most ``longest`` pixels; 0 for the photo's own size."""
    scale = thumbnail_scale(*picture.size, longest)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    buffer = io.BytesIO()
    picture.resized((width, height)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
