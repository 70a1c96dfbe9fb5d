"""Files made to cost their reader: little to send, and much to decode. As large as is asked for."""

import io
import math
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

SIDE = 16_000
"""Of the longer side: WebP knows none over 16,383."""


def hostile(megapixels: float, scans: int = 2_000, frames: int = 20_000, bomb_mb: int = 1_000) -> dict[str, bytes]:
    """By what they are."""
    pixels = int(megapixels * 1e6)
    width = min(SIDE, int(1.6 * math.sqrt(pixels)))
    size = width, max(1, pixels // width)
    grey = Image.new("L", size, 128)
    files = {
        "JPEG": _saved(grey, "JPEG"),
        "JPEG, progressive": _saved(grey, "JPEG", progressive=True),
        f"JPEG, {scans:,} scans": _many_scans(_saved(grey, "JPEG", progressive=True), scans),
        "PNG": _png(*size, 0, 8),
        "PNG, 16 bits": _png(*size, 0, 16),
        "PNG, 16 bits, RGBA": _png(*size, 6, 16),
        "PNG, interlaced": _saved_interlaced(*size),
        "PNG, 1 pixel wide": _png(1, pixels, 0, 8),
        "WebP, lossless": _saved(Image.new("RGB", size, "teal"), "WEBP", lossless=True, method=0),
        "JPEG 2000": _saved(grey, "JPEG2000", quality_mode="rates", quality_layers=[2000]),
        "QOI": _qoi(*size),
        "GIF": _saved(grey, "GIF"),
        "BMP, run-length": _bmp_rle(*size),
        "TGA, run-length": _tga(*size),
        "PSD, run-length": _psd(*size),
        "TIFF, deflated": _saved(grey, "TIFF", compression="tiff_deflate"),
        "TIFF, floats": _saved(Image.fromarray(np.zeros(size[::-1], np.float32)), "TIFF", compression="tiff_deflate"),
        "TIFF, a strip a row": _saved(grey, "TIFF", compression="tiff_deflate", tiffinfo={278: 1}),
        "TIFF, CMYK": _saved(Image.new("CMYK", size), "TIFF", compression="tiff_deflate"),
        "HEIF": _saved(Image.new("L", _part(size, 8), 128), "HEIF", quality=1),
        "AVIF": _saved(Image.new("L", _part(size, 8), 128), "AVIF", quality=1, speed=10),
    }
    small = Image.new("RGB", (64, 64), "olive")
    files |= {
        f"GIF, {frames:,} frames": _gif_frames(frames),
        f"TIFF, {frames:,} frames": _tiff_frames(frames),
        f"PNG, iCCP of {bomb_mb:,} MB": _with_chunk(_saved(small, "PNG"), b"iCCP", b"a\0\0" + _zeros(bomb_mb)),
        f"PNG, zTXt of {bomb_mb:,} MB": _with_chunk(_saved(small, "PNG"), b"zTXt", b"a\0\0" + _zeros(bomb_mb)),
        f"PNG, iTXt of {bomb_mb:,} MB": _with_chunk(
            _saved(small, "PNG"), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _zeros(bomb_mb)
        ),
        "PNG, 100,000 text chunks": _with_chunk(_saved(small, "PNG"), b"tEXt", b"a\0b", 100_000),
        "JPEG with a ZIP behind": _saved(small, "JPEG") + b"PK\3\4" + bytes(1000),
        "PNG with HTML behind": _saved(small, "PNG") + b"<script>alert(1)</script>",
        "HTML with a JPEG in it": b"<html>" + _saved(small, "JPEG"),
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    }
    return files


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _part(size: tuple[int, int], area: int) -> tuple[int, int]:
    """Encoding takes far longer than decoding does."""
    return size[0], max(64, size[1] // area)


def _many_scans(progressive: bytes, scans: int) -> bytes:
    """The last scan as often as that: each goes over the whole picture."""
    last = progressive.rindex(b"\xff\xda")
    return progressive[:last] + progressive[last:-2] * scans + b"\xff\xd9"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, colour: int, bits: int, interlaced: bool = False) -> bytes:
    row = 1 + math.ceil(width * bits * {0: 1, 2: 3, 6: 4}[colour] / 8)
    packer, packed, zeros = zlib.compressobj(6), [], bytes(row * min(height, 1 + (1 << 24) // row))
    left = row * height
    while left > 0:
        packed.append(packer.compress(zeros[:left]))
        left -= len(zeros)
    packed.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"".join(packed)) + _chunk(b"IEND", b"")


def _saved_interlaced(width: int, height: int) -> bytes:
    """Seven passes; rows of zeros of any length make them up."""
    spare = 8 * height  # a filter byte for each row of each pass
    data = zlib.compress(bytes(width * height + spare), 6)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _with_chunk(png: bytes, kind: bytes, body: bytes, times: int = 1) -> bytes:
    head = 8 + 25
    return png[:head] + times * _chunk(kind, body) + png[head:]


def _zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def _qoi(width: int, height: int) -> bytes:
    """Runs of 62 pixels."""
    full, rest = divmod(width * height, 62)
    runs = b"\xfd" * full + (bytes([0xC0 + rest - 1]) if rest else b"")
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + runs + bytes(7) + b"\x01"


def _bmp_rle(width: int, height: int) -> bytes:
    row = b"".join(bytes([min(255, width - at), 7]) for at in range(0, width, 255)) + b"\0\0"
    body = row * height + b"\0\1"
    palette = bytes(4 * 256)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(head) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + head + palette + body


def _tga(width: int, height: int) -> bytes:
    row = b"".join(bytes([127 + min(128, width - at), 9]) for at in range(0, width, 128))
    return struct.pack("<BBBHHBHHHHBB", 0, 0, 11, 0, 0, 0, 0, 0, width, height, 8, 0) + row * height


def _psd(width: int, height: int) -> bytes:
    row = b"".join(bytes([257 - min(128, width - at), 9]) for at in range(0, width - width % 128, 128))
    row += bytes([257 - width % 128, 9]) if width % 128 > 1 else b"\0\11" * (width % 128)
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, height, width, 8, 1) + bytes(12)
    return head + b"\0\1" + struct.pack(">H", len(row)) * height + row * height


def _gif_frames(frames: int) -> bytes:
    pixels = _saved(Image.new("P", (64, 64)), "GIF")
    start = pixels.index(b"\x2c")
    return pixels[:start] + pixels[start:-1] * frames + b";"


def _tiff_frames(frames: int) -> bytes:
    """Directories of one strip, in a ring at the end."""
    data, at = [b"II*\0" + struct.pack("<I", 8)], 8
    for number in range(frames):
        tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 0), (277, 1), (278, 1), (279, 1))
        body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        at += 2 + len(body) + 4
        data.append(struct.pack("<H", len(tags)) + body + struct.pack("<I", at if number < frames - 1 else 8))
    return b"".join(data)
