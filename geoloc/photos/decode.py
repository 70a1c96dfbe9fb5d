"""From a file's bytes to pixels."""

import io
import math
import re
import struct
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

import geoloc.photos.codecs  # noqa: F401 (what Pillow can read, in this process)
from geoloc.errors import PhotoError
from geoloc.photos.embedded import embedded
from geoloc.photos.formats import DECODED
from geoloc.photos.metadata import Carried
from geoloc.photos.views import Picture

# Damage in the compressed data itself. libjpeg's other complaints (stray bytes between segments) leave the picture whole.
_JPEG_DAMAGE = re.compile(r"premature end|bad huffman|corrupt jpeg data(?!: \d+ extraneous)", re.IGNORECASE)

_TRUNCATED = re.compile(r"truncated|premature|not enough data|EOF", re.IGNORECASE)
_MEMORY = re.compile(r"out of memory|memory alloc|insufficient memory|decoder error -9", re.IGNORECASE)

MAX_SCANS, MAX_SCAN_MEGAPIXELS = 100, 2_000
"""Of a JPEG: every scan goes over the whole picture again. Cameras write 1, progressive encoders about 10, and never as many as
these: one repeated 2,000 times kept a decoder busy for minutes."""
MARGIN = 3
"""How many times larger than what is wanted a JPEG is decoded at least: closer to it, scaling in the DCT shows in the pixels
that a model sees, and in what it finds most similar (tests/bench/bench_decode)."""
_EIGHTHS = (1, 2, 4)
"""DCT scales, for which decoders have fast paths."""
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Of a JPEG's segments. In compressed data 255 is followed by 0, by a restart's number or by itself."""
_SCAN, _END, _ALONE = 0xDA, 0xD9, (0x01, 0xD8)
_PNG, _PNG_TEXT = b"\x89PNG\r\n\x1a\n", (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MIRRORED, _UPENDED = (2, 3, 6, 7), (3, 4, 7, 8)
"""Orientations whose upright picture has the stored one's last columns, or rows, first (or rows, or columns)."""


class PhotoFile:
    """An image file, opened: its header and metadata are read, its pixels are not.

    Raises PhotoError of the kinds ``not_an_image``, ``corrupt``, ``too_many_pixels`` and ``too_many_scans``.
    """

    def __init__(self, data: bytes, max_pixels: int = 200_000_000) -> None:
        self._data = data
        try:
            with warnings.catch_warnings(action="ignore"):
                self._image = Image.open(io.BytesIO(_without_text(data)), formats=list(DECODED))
                self.carried = Carried(embedded(self._image, data))
        except UnidentifiedImageError as error:
            raise PhotoError("not_an_image", "no known image format") from error
        except Exception as error:  # an image decoder fed with arbitrary bytes raises arbitrary exceptions
            raise _unreadable(error) from error
        width, height = self._image.size
        if width * height > max_pixels:
            raise PhotoError(
                "too_many_pixels", f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:g}"
            )
        if self._is_jpeg:
            _check_scans(data, width * height / 1e6)
        # Pillow turns a TIFF upright itself, and so do the decoders of HEIF, which clear the tag.
        self._orientation = 1 if self._image.format == "TIFF" else self.carried.orientation
        self.width, self.height = (height, width) if self._orientation >= 5 else (width, height)

    @property
    def _is_jpeg(self) -> bool:
        return self._image.format in ("JPEG", "MPO")

    def picture(self, scale: float = 1.0, exact: bool = False) -> Picture:
        """RGB and upright, at MARGIN times ``scale`` of its resolution or more.

        A JPEG is decoded at the smallest of the DCT scales 1/8, 1/4 and 1/2 that is enough; others, and all if ``exact``,
        whole. Raises PhotoError of the kinds ``truncated`` and ``corrupt``.
        """
        eighths = 8
        if self._is_jpeg and not exact:
            eighths = next((n for n in _EIGHTHS if n >= 8 * MARGIN * scale), 8)
        try:
            with warnings.catch_warnings(action="ignore"):
                image = self._jpeg(eighths) if self._is_jpeg else to_rgb(self._image)
        except PhotoError:
            raise
        except Exception as error:  # as above
            raise _unreadable(error) from error
        turn = _TRANSPOSE.get(self._orientation)
        upright = image if turn is None else image.transpose(turn)
        return Picture(upright, (self.width, self.height), self._box(upright, eighths / 8))

    def _jpeg(self, eighths: int) -> Image.Image:
        if self._image.mode in ("RGB", "L"):
            try:
                width, height = (math.ceil(side * eighths / 8) for side in self._image.size)
                return Image.fromarray(simplejpeg.decode_jpeg(self._data, "RGB", min_width=width, min_height=height))
            except ValueError as error:
                if _JPEG_DAMAGE.search(str(error)):
                    raise PhotoError(_damage(error), str(error)) from error
        image = Image.open(io.BytesIO(self._data), formats=["JPEG", "MPO"])  # drafts change the object they are of
        image.draft(None, (image.width * eighths // 8, image.height * eighths // 8))
        return to_rgb(image)

    def _box(self, upright: Image.Image, scale: float) -> tuple[float, float, float, float]:
        """Where the photo lies in its scaled image: decoders round sides up, at what were the right and lower edges."""
        width, height = self.width * scale, self.height * scale
        left = upright.width - width if self._orientation in _MIRRORED else 0
        top = upright.height - height if self._orientation in _UPENDED else 0
        return left, top, left + width, top + height


def _without_text(data: bytes) -> bytes:
    """A PNG without the chunks that Pillow inflates, and refuses the picture where one is too large; any other file as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at, start = [], len(_PNG), 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _PNG_TEXT:
            kept.append(data[start:at])
            start = end
        at = end
    return b"".join((*kept, data[start:])) if kept else data


def _check_scans(data: bytes, megapixels: float) -> None:
    """Raises PhotoError where decoding would go over the picture too often."""
    most = min(MAX_SCANS, max(16, int(MAX_SCAN_MEGAPIXELS / max(megapixels, 1e-6))))
    octets = np.frombuffer(data, np.uint8)
    if np.count_nonzero((octets[:-1] == 0xFF) & (octets[1:] == _SCAN)) <= most:  # thumbnails' included, and far quicker
        return
    at, scans = 2, 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            break
        if marker not in _ALONE:
            scans += marker == _SCAN
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    if scans > most:
        raise PhotoError("too_many_scans", f"{scans:,} scans of {megapixels:.0f} megapixels, the limit is {most}")


def _unreadable(error: Exception) -> PhotoError:
    return PhotoError(_damage(error), f"{type(error).__name__}: {error}")


def _damage(error: Exception) -> str:
    """The kind of a decoder's complaint."""
    if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
        return "too_much_memory"
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
