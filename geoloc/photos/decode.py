"""From a file's bytes to the pixels a model looks at, and not one pixel more."""

import io
import math
import re
import warnings
from dataclasses import dataclass, field

import numpy as np
import pillow_heif
import simplejpeg
from PIL import Image, UnidentifiedImageError

from geoloc.errors import PhotoError
from geoloc.photos.embedded import embedded
from geoloc.photos.formats import DECODED
from geoloc.photos.metadata import Carried

Image.init()
pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None  # PhotoFile has its own limit, checked before any pixel is decoded

# Damage in the compressed data itself. libjpeg's other complaints (stray bytes between segments) leave the picture whole.
_JPEG_DAMAGE = re.compile(r"premature end|bad huffman|corrupt jpeg data(?!: \d+ extraneous)", re.IGNORECASE)

_TRUNCATED = re.compile(r"truncated|premature|not enough data|EOF", re.IGNORECASE)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


TEN_CROP_MARGIN = 8 / 7
"""224 pixels are cut from 256, 336 from 384."""


@dataclass(frozen=True)
class View:
    """What a model wants to see: ``size`` x ``size`` pixels (open_clip's ``preprocess_cfg``)."""

    size: int
    mode: str = "shortest"
    """``shortest``: scale the shortest side to ``size``, cut the middle; ``squash``: ignore the aspect ratio."""
    interpolation: str = "bicubic"
    ten_crop: bool = field(default=False, repr=False)
    """Five crops (corners, then middle) of the picture at 8/7 of the size; mirroring them makes ten. The encoder is the
    same, so it is no part of what the view is called."""

    def scale(self, width: int, height: int) -> float:
        """The part of a photo's resolution that this view needs."""
        return self._side / min(width, height)

    def pixels(self, image: Image.Image) -> bytes:
        """uint8, (size, size, 3), or (5, size, size, 3) with ten crops."""
        middle = self.of(image)
        if not self.ten_crop:
            return middle.tobytes()
        width, height = self._resized(image)
        right, bottom = width - self.size, height - self.size
        corners = [self._crop(image, *corner) for corner in ((0, 0), (right, 0), (0, bottom), (right, bottom))]
        return b"".join(crop.tobytes() for crop in (*corners, middle))

    def of(self, image: Image.Image) -> Image.Image:
        """Equal to open_clip's resize and centre crop, but scaling only what is kept."""
        width, height = self._resized(image)
        return self._crop(image, round((width - self.size) / 2), round((height - self.size) / 2))

    @property
    def _side(self) -> int:
        """What the shortest side is scaled to."""
        return round(self.size * TEN_CROP_MARGIN) if self.ten_crop else self.size

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        """What the picture is scaled to, before crops are cut."""
        if self.mode == "squash":
            return self._side, self._side
        shortest = min(image.size)
        return int(self._side * image.width / shortest), int(self._side * image.height / shortest)

    def _crop(self, image: Image.Image, left: int, top: int) -> Image.Image:
        """``size`` x ``size`` pixels of the scaled picture."""
        width, height = self._resized(image)
        across, down = image.width / width, image.height / height
        right, bottom = min((left + self.size) * across, image.width), min((top + self.size) * down, image.height)
        box = (left * across, top * down, right, bottom)
        return image.resize((self.size, self.size), Image.Resampling[self.interpolation.upper()], box=box)


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

    def of(self, image: Image.Image) -> np.ndarray:
        """uint8, (height, width, 3)."""
        return np.asarray(image.resize(self.size(*image.size), Image.Resampling.BICUBIC))


def packed(picture: np.ndarray) -> dict:
    """(h, w, 3) uint8 as a value of PICTURE."""
    return {"pixels": picture.tobytes(), "height": picture.shape[0], "width": picture.shape[1]}


def unpacked(picture: dict | None) -> np.ndarray | None:
    """The other way round, read-only and not copied."""
    if picture is None:
        return None
    return np.frombuffer(picture["pixels"], np.uint8).reshape(picture["height"], picture["width"], 3)


class PhotoFile:
    """An image file, opened: its header and metadata are read, its pixels are not.

    Raises PhotoError of the kinds ``not_an_image``, ``corrupt`` and ``too_many_pixels``.
    """

    def __init__(self, data: bytes, max_pixels: int = 200_000_000) -> None:
        self._data = data
        try:
            with warnings.catch_warnings(action="ignore"):
                self._image = Image.open(io.BytesIO(data), formats=list(DECODED))
                self.carried = Carried(embedded(self._image, data))
        except UnidentifiedImageError as error:
            raise PhotoError("not_an_image", "no known image format") from error
        except Exception as error:  # an image decoder fed with arbitrary bytes raises arbitrary exceptions
            raise PhotoError("corrupt", f"{type(error).__name__}: {error}") from error
        width, height = self._image.size
        if width * height > max_pixels:
            raise PhotoError(
                "too_many_pixels", f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:g}"
            )
        # Pillow turns a TIFF upright itself, and so do the decoders of HEIF, which clear the tag.
        self._orientation = 1 if self._image.format == "TIFF" else self.carried.orientation
        self.width, self.height = (height, width) if self._orientation >= 5 else (width, height)

    def pixels(self, scale: float = 1.0) -> Image.Image:
        """The picture as RGB, upright, at ``scale`` of its resolution or more.

        A JPEG is decoded at the smallest DCT scale (1/8 … 8/8) that is not below ``scale``; other formats whole.
        Raises PhotoError of the kinds ``truncated`` and ``corrupt``.
        """
        try:
            with warnings.catch_warnings(action="ignore"):
                image = self._scaled_jpeg(min(scale, 1.0)) if self._image.format in ("JPEG", "MPO") else None
                image = to_rgb(self._image) if image is None else image
        except PhotoError:
            raise
        except Exception as error:  # as above
            raise PhotoError(_damage(error), f"{type(error).__name__}: {error}") from error
        turn = _TRANSPOSE.get(self._orientation)
        return image if turn is None else image.transpose(turn)

    def _scaled_jpeg(self, scale: float) -> Image.Image | None:
        """None where the picture is Pillow's to decode, which then starts from a DCT scale of its own."""
        width, height = self._image.size
        least = (math.ceil(width * scale), math.ceil(height * scale))
        if self._image.mode in ("RGB", "L"):
            try:
                array = simplejpeg.decode_jpeg(self._data, "RGB", min_width=least[0], min_height=least[1])
                return Image.fromarray(array)
            except ValueError as error:
                if _JPEG_DAMAGE.search(str(error)):
                    raise PhotoError(_damage(error), str(error)) from error
        self._image.draft(None, least)
        return None


def _damage(error: Exception) -> str:
    """The kind of a decoder's complaint."""
    return "truncated" if _TRUNCATED.search(str(error)) else "corrupt"


def to_rgb(image: Image.Image) -> Image.Image:
    """First frame, 8 bits, on white where it is transparent."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """16-bit data by its full range, 8-bit and unit-range data as they are, anything else by its own range."""
    top = float(np.nanmax(values, initial=0))
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == "f" and top <= 1:
        factor = 255.0
    else:
        factor = 1.0 if top <= 255 else 255 / 65535 if top <= 65535 else 255 / top
    return np.clip(np.nan_to_num(values) * factor, 0, 255).astype(np.uint8)


def thumbnail_scale(width: int, height: int, longest: int) -> float:
    """The part of a photo's resolution that ``thumbnail`` needs."""
    return longest / max(width, height)


def thumbnail(image: Image.Image, longest: int) -> bytes:
    """A JPEG whose longest side has at most ``longest`` pixels."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
