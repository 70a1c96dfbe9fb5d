"""The formats of archives: what is decoded, under which suffixes it is listed, and what is left out by name."""

import os

DECODED = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "ICO": (),  # icons and textures are no photos; decoded where another name hides them
    "CUR": (),
    "PCX": (".pcx",),
    "SGI": (".sgi",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "DDS": (),
    "XPM": (),
    "MSP": (),
}
"""Pillow's names, with suffixes. Old formats turn up in archives; none here runs another program (EPS)
or reads other files."""

SUFFIXES = frozenset(suffix for suffixes in DECODED.values() for suffix in suffixes)

_RAW = ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
_VIDEO = (
    ".3gp .asf .avi .flv .insv .lrv .m2ts .m4v .mkv .mod .mov .mp .mp4 .mpeg .mpg .mts .mv .ogv .ts .vob .webm .wmv"
)
LEFT_OUT = {
    **dict.fromkeys(_RAW.split(), "RAW"),
    **dict.fromkeys(_VIDEO.split(), "video"),
    ".jxl": "JPEG XL",
}
"""What archives hold beside photos that are read, by suffix."""


def suffix_of(name: str) -> str:
    """In lower case; empty where the name has none, or is nothing else (``.hidden``)."""
    return os.path.splitext(name.rsplit("/", 1)[-1])[1].lower()


def is_photo(name: str) -> bool:
    """By its suffix; without one it may be anything, and is looked at."""
    suffix = suffix_of(name)
    return not suffix or suffix in SUFFIXES


def left_out_text(counts: dict[str, int]) -> str:
    """``12 .mov (video), 3 .txt``, the most first."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} {suffix}{f' ({LEFT_OUT[suffix]})' if suffix in LEFT_OUT else ''}" for suffix, n in shown)
