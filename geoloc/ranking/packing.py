"""All of a photo's candidates in one forward pass that reads what they share once, and pads nothing.

A photo's prompts differ only after its own image. So they become one prefix and a suffix for each candidate, laid end to
end, for several photos if there is room. Every layer works on that one sequence, and attention alone knows of its parts: a
prefix sees itself, a suffix its prefix and itself. Scores are those of each pair alone, because every token sees what it
would see there, at the position it would have there.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from geoloc.devices import to_device
from geoloc.ranking.attention import Group, Layout, Lengths, Segments

Grid = tuple[int, int]
"""Rows and columns of an image's patches."""


@dataclass(eq=False)
class EncodedImage:
    """An image as the language model sees it."""

    grid: Grid
    features: torch.Tensor | None = None
    """(tokens, width); None until it has been encoded."""


@dataclass(frozen=True)
class Part:
    """Of a prompt: its tokens, their rotary positions in the whole prompt, and the one image among them, if any."""

    ids: np.ndarray
    """(t,) int64."""
    positions: np.ndarray
    """(3, t) int64."""
    image: EncodedImage | None
    image_at: int = 0
    """Where its tokens begin."""


@dataclass(frozen=True)
class Prompts:
    """A photo's: what is common to its candidates, and what is each candidate's own."""

    prefix: Part
    suffixes: list[Part]

    @property
    def tokens(self) -> int:
        return sum(len(part.ids) for part in (self.prefix, *self.suffixes))

    @property
    def longest(self) -> int:
        """Tokens of the longest single prompt."""
        return len(self.prefix.ids) + max(len(part.ids) for part in self.suffixes)

    def halves(self) -> tuple["Prompts", "Prompts"]:
        """The first and the second half of the candidates."""
        middle = len(self.suffixes) // 2
        return Prompts(self.prefix, self.suffixes[:middle]), Prompts(self.prefix, self.suffixes[middle:])


@dataclass(frozen=True)
class Pack:
    """Prompts of several photos as one sequence of t tokens: their prefixes, and then their suffixes."""

    ids: torch.Tensor
    """(t,)."""
    positions: torch.Tensor
    """(3, 1, t)."""
    images: torch.Tensor
    """(v, width): the features of its images, one after the other."""
    image_tokens: torch.Tensor
    """(v,): the tokens that they take the place of."""
    last: torch.Tensor
    """(c,) the last token of each suffix, photo by photo."""
    layout: Layout

    @classmethod
    def of(cls, photos: Sequence[Prompts], device: torch.device | str, kernel: bool = False) -> "Pack":
        """Their images have been encoded. ``kernel``: for attention by it (geoloc.ranking.attention.has_kernel)."""
        parts = [photo.prefix for photo in photos] + [part for photo in photos for part in photo.suffixes]
        lengths = np.array([len(part.ids) for part in parts])
        starts = np.cumsum(lengths) - lengths
        shown = [(part, start) for part, start in zip(parts, starts, strict=True) if part.image]
        at = [start + part.image_at + np.arange(len(part.image.features)) for part, start in shown]
        numbers = [
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.positions for part in parts], axis=1),
            np.concatenate(at),
            (starts + lengths - 1)[len(photos) :],
        ]
        make = _segments if kernel else _groups
        (ids, positions, image_tokens, last), layout = make(photos, lengths, starts, numbers, device)
        images = torch.cat([part.image.features for part, _ in shown])
        return cls(ids, positions[:, None], images, image_tokens, last, layout)


def _moved(numbers: Sequence[np.ndarray], device: torch.device | str) -> list[torch.Tensor]:
    """By one copy."""
    flat = to_device(np.concatenate([one.ravel() for one in numbers]), device)
    return [one.view(shape.shape) for one, shape in zip(flat.split([n.size for n in numbers]), numbers, strict=True)]


def _groups(
    photos: Sequence[Prompts], lengths: np.ndarray, starts: np.ndarray, numbers: list[np.ndarray], device: str
) -> tuple[list[torch.Tensor], list[Group]]:
    bounds = np.cumsum([len(photos), *(len(photo.suffixes) for photo in photos)])
    padded, unpadded = [], []
    for first, end in itertools.pairwise(bounds):
        own, column = lengths[first:end, None], np.arange(lengths[first:end].max())
        padded.append(starts[first:end, None] + np.minimum(column, own - 1))
        unpadded.append(np.flatnonzero(column < own))
    count = len(photos)
    moved = _moved([*numbers, *padded, *unpadded], device)
    padded, unpadded = moved[len(numbers) : -count], moved[-count:]
    sizes = zip(starts[:count].tolist(), lengths[:count].tolist(), padded, unpadded, strict=True)
    return moved[: len(numbers)], [Group(*one) for one in sizes]


def _segments(
    photos: Sequence[Prompts], lengths: np.ndarray, starts: np.ndarray, numbers: list[np.ndarray], device: str
) -> tuple[list[torch.Tensor], Segments]:
    prefixes, suffixes = lengths[: len(photos)], lengths[len(photos) :]
    firsts = np.cumsum([0, *(len(photo.suffixes) for photo in photos)])[:-1]
    kinds = [prefixes, np.add.reduceat(suffixes, firsts), suffixes]
    bounds = _moved([np.cumsum([0, *kind]).astype(np.int32) for kind in kinds], device)
    found = [Lengths(bound, int(kind.max())) for bound, kind in zip(bounds, kinds, strict=True)]
    return _moved(numbers, device), Segments(int(prefixes.sum()), *found)
