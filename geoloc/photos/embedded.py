"""Where in an image file its EXIF block and its XMP packets stand. Finds them, and reads neither."""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

MAX_BLOCK = 16 << 20
"""Bytes of the blocks of a file; more are not looked at."""

_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_PNG_XMP = b"XML:com.adobe.xmp"
_EXIF_UUID = b"JpgTiffExif->JP2"
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_PSD_EXIF, _PSD_XMP = 1058, 1060
_TIFF_XMP = 700


@dataclass(frozen=True)
class Embedded:
    exif: bytes | None = None
    """A TIFF structure; of a TIFF file, the file itself."""
    xmp: tuple[bytes, ...] = ()


def embedded(image: Image.Image, data: bytes) -> Embedded:
    """Of an opened image and its file, without decoding a pixel. What comes behind a malformed block is not found, what came
    before it is; and no more than MAX_BLOCK in all."""
    find = _FINDERS.get(image.format, _of_info)
    blocks, size = [], 0
    with contextlib.suppress(Exception):  # the bytes are arbitrary, and so is what reading them raises
        for kind, block in find(image, data):
            size += 0 if block is data else len(block)
            if size > MAX_BLOCK:
                break
            blocks.append((kind, block))
    exif = next((block for kind, block in blocks if kind == "exif"), None)
    if exif is not None:
        exif = exif.removeprefix(b"Exif\0\0")
    return Embedded(exif or None, tuple(block for kind, block in blocks if kind == "xmp"))


def _of_info(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    """As Pillow's plugins give them (WebP, HEIF, AVIF)."""
    for kind in ("exif", "xmp"):
        block = image.info.get(kind)
        if block:
            yield kind, block.encode() if isinstance(block, str) else bytes(block)


def _of_jpeg(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield from _of_info(image, data)
    pieces = {}
    for name, segment in image.applist:
        if name == "APP1" and segment.startswith(_EXTENDED):
            head = segment[len(_EXTENDED) :]
            (offset,) = struct.unpack(">I", head[36:40])
            pieces[offset] = head[40:]
    if pieces:
        yield "xmp", b"".join(pieces[offset] for offset in sorted(pieces))


def _of_tiff(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "exif", data
    packet = image.tag_v2.get(_TIFF_XMP)
    if packet:
        yield "xmp", packet if isinstance(packet, bytes) else bytes(packet)


def _of_png(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Of all chunks: those behind the picture too, where exiftool writes them."""
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        if length > MAX_BLOCK or len(body) < length:
            continue
        if kind == b"eXIf":
            yield "exif", body
        elif kind in (b"iTXt", b"tEXt", b"zTXt"):
            name, _, rest = body.partition(b"\0")
            if name == _PNG_XMP and kind == b"iTXt":
                compressed, rest = rest[0], rest[2:].split(b"\0", 2)[2]
                yield "xmp", _inflated(rest) if compressed else rest
            elif name in (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp"):
                yield from _raw_profile(rest if kind == b"tEXt" else _inflated(rest[1:]))


def _raw_profile(text: bytes) -> Iterator[tuple[str, bytes]]:
    """ImageMagick's way: a name, a length, and hexadecimal digits."""
    block = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    if block.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        yield "xmp", block.split(b"\0", 1)[1]
    else:
        yield ("exif" if block[:4] in (b"Exif", b"II*\0", b"MM\0*") else "xmp"), block


def _inflated(packed: bytes) -> bytes:
    return zlib.decompressobj().decompress(packed, MAX_BLOCK)


def _of_psd(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    for number, _, block in image.resources:
        if number in (_PSD_EXIF, _PSD_XMP):
            yield "exif" if number == _PSD_EXIF else "xmp", block


def _of_gif(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The packet stands as it is in an application block, closed by a trailer of falling bytes."""
    start = data.find(b"XMP DataXMP")
    if start >= 0:
        found = re.compile(rb"<\?xpacket end=.{0,20}\?>", re.DOTALL).search(data, start)
        yield "xmp", data[start + 11 : found.end() if found else start + MAX_BLOCK]


def _of_jpeg2000(image: Image.Image, data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", data[at + 8 : at + 16]), 16
        end = at + length if length else len(data)
        if kind == b"uuid":
            identity, body = data[at + head : at + head + 16], data[at + head + 16 : end]
            if identity in (_EXIF_UUID, _XMP_UUID):
                yield "exif" if identity == _EXIF_UUID else "xmp", body
        if end <= at:
            return
        at = end


_FINDERS = {
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "TIFF": _of_tiff,
    "PNG": _of_png,
    "PSD": _of_psd,
    "GIF": _of_gif,
    "JPEG2000": _of_jpeg2000,
}
