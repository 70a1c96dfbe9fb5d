"""Which files of a source are its photos: litter goes, globs are heard, and a part may be taken of the whole."""

import fnmatch
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from geoloc.errors import UsageError

_LITTER_FOLDERS = [
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    ".thumbnails",
    ".@__thumb",
    ".stversions",
    "__MACOSX",
    ".Spotlight-V100",
]
_LITTER_FILES = [".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".picasa.ini", "Picasa.ini"]
_FOLDERS, _FILES = ({name.lower(): name for name in names} for names in (_LITTER_FOLDERS, _LITTER_FILES))
_YEAR_FOLDER = re.compile(
    r"(?:Photos from|Fotos von|Fotos aus|Photos de|Fotos de|Fotos del|Foto del|Foto dal|Foto's uit|Zdjęcia z) (?:19|20)\d\d$"
)


@dataclass(frozen=True)
class ListingOptions:
    include: tuple[str, ...] = ()
    """List only photos whose path below SOURCE fits one of these globs; * stands for any characters, / among them."""
    exclude: tuple[str, ...] = ()
    """List no photo whose path below SOURCE fits one of these globs. In a run that is there, its rows go."""
    limit: int | None = None
    """List only the first so many photos."""
    sample: int | None = None
    """List only so many, spread evenly over the listing."""
    sample_seed: int = 0
    """Another seed, another sample."""
    litter: bool = False
    """List what is left out as litter too: thumbnails, recycle bins and the like, and Takeout's copies in albums."""
    sidecars: bool = True
    """Read positions and times from XMP and Google Takeout files beside photos."""
    keep_removed: bool = False
    """Keep the rows of photos that SOURCE has no more, such as where it is a table of each day's new photos."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("limit", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: must be at least 1")
        if self.limit and self.sample:
            raise UsageError(f"--limit {self.limit}: goes not with --sample {self.sample}; give one of them")

    def takes(self, path: str) -> bool:
        """By the globs. ``path`` is the photo's below its source."""
        include, exclude = _pattern(self.include), _pattern(self.exclude)
        return (include is None or bool(include.match(path))) and not (exclude and exclude.match(path))

    def some(self, rows: Iterable[dict]) -> Iterator[dict]:
        """As many of them as asked for."""
        if self.limit:
            return itertools.islice(rows, self.limit)
        return iter(_spread(rows, self.sample, self.sample_seed)) if self.sample else iter(rows)


@functools.lru_cache
def _pattern(globs: tuple[str, ...]) -> re.Pattern | None:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)) if globs else None


def _spread(rows: Iterable[dict], count: int, seed: int) -> list[dict]:
    """One of each of ``count`` even stretches, holding few rows at a time: every other one goes whenever they are too
    many."""
    kept, stride = [], 1
    for number, row in enumerate(rows):
        if number % stride == 0:
            kept.append(row)
            if len(kept) >= 16 * count:
                kept, stride = kept[::2], 2 * stride
    if len(kept) <= count:
        return kept
    bounds = np.linspace(0, len(kept), count + 1).astype(int)
    chosen = np.random.default_rng(seed).integers(bounds[:-1], bounds[1:])
    return [kept[at] for at in chosen]


def litter(path: str) -> str | None:
    """The kind of litter that a path below its source is; None for what is none."""
    *folders, name = path.split("/")
    for folder in folders:
        if kind := _FOLDERS.get(folder.lower()):
            return kind
        if folder.startswith(".Trash"):
            return ".Trash"
        if folder.endswith(".lrdata"):
            return "Lightroom previews"
    if name.startswith("._"):
        return "._*"
    return _FILES.get(name.lower())


class TakeoutCopies:
    """Google Takeout gives each photo in a folder of its year, and again in each of its albums."""

    def __init__(self) -> None:
        self._years: set[tuple] = set()
        self._albums: list[tuple[tuple, dict]] = []

    def hold(self, row: dict) -> bool:
        """Whether the row is an album's, which is kept back until all folders of years are known."""
        parts = row["uri"].split("/")
        key = ("/".join(parts[:-2]), parts[-1], row.get("size"))
        if len(parts) < 3 or not any(folder.startswith("Google ") for folder in parts[:-2]):
            return False
        if _YEAR_FOLDER.match(parts[-2]):
            self._years.add(key)
            return False
        self._albums.append((key, row))
        return True

    def rest(self) -> tuple[list[dict], int]:
        """The held rows that are no copies, and how many are."""
        rest = [row for key, row in self._albums if key not in self._years]
        return rest, len(self._albums) - len(rest)
