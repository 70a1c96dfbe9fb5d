"""Which files beside a photo speak of it: XMP, and Google Takeout's JSON in its many spellings. Names only."""

import re
from collections.abc import Mapping
from typing import TypeVar

SUFFIXES = (".xmp", ".json")

_TAKEOUT = ".supplemental-metadata"
"""Takeout adds it, cut short where the name would be too long."""
_TAKEOUT_LONGEST = 46
"""Characters of a Takeout name before ``.json``."""
_EDITED = re.compile(
    r"-(edited|bearbeitet|modifié|bewerkt|modificato|ha editado|editado|editada|edytowane|編集済み)(?=(\(\d+\))?$)"
)
_NUMBER = re.compile(r"\((\d+)\)$")
_T = TypeVar("_T")


def sidecars_of(name: str, beside: Mapping[str, _T]) -> list[_T]:
    """Of the sidecars in a photo's folder, by their names in lower case, those of the photo: XMP, then Takeout's.

    >>> sidecars_of("IMG_1(1).jpg", {"img_1.jpg(1).json": "a", "img_1.jpg.json": "b", "img_1(1).xmp": "c"})
    ['c', 'a']
    """
    return [beside[spelling] for spelling in dict.fromkeys(_spellings(name.lower())) if spelling in beside]


def common_stem(name: str) -> str:
    """What the names of all of a photo's sidecars begin with, and its own.

    >>> common_stem("IMG_1-edited(2).jpg")
    'IMG_1'
    """
    stem = name.rpartition(".")[0] or name
    return _NUMBER.sub("", _EDITED.sub("", _NUMBER.sub("", stem)))[:_TAKEOUT_LONGEST]


def _spellings(name: str):
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    yield f"{name}.xmp"
    yield f"{stem}.xmp"
    original = _EDITED.sub("", stem)
    number = _NUMBER.search(original)
    for plain, count in ((original, ""), (_NUMBER.sub("", original), number[0] if number else "")):
        whole = f"{plain}{dot}{suffix}"
        for end in range(len(_TAKEOUT) + 1):
            yield f"{whole}{_TAKEOUT[:end]}{count}.json"
        yield f"{whole[:_TAKEOUT_LONGEST]}{count}.json"
