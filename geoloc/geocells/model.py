"""Cells of the Earth as learned vectors, or as classes, and how well a photo matches each (GeoSURGE §III)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from geoloc.geocells.methods import Head

TEMPERATURE = 0.07
"""Of every partition, at first (GeoSURGE §IV)."""


class Geocells(nn.Module):
    """Image vectors to logits of the cells of each partition."""

    def __init__(self, dimension: int, sizes: Sequence[int], head: Head = "embeddings", width: int = 768) -> None:
        """``sizes``: the partitions' numbers of cells, coarsest first."""
        super().__init__()
        self.head = head
        self.norm = nn.LayerNorm(dimension)
        if head == "embeddings":
            self.image = nn.Linear(dimension, width)
            self.cells = nn.ParameterList(nn.Parameter(torch.randn(size, width) * width**-0.5) for size in sizes)
            self.log_temperature = nn.Parameter(torch.full((len(sizes),), TEMPERATURE).log())
        else:
            self.classes = nn.ModuleList(nn.Linear(dimension, size) for size in sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        parts = self.cells if self.head == "embeddings" else [layer.weight for layer in self.classes]
        return tuple(len(part) for part in parts)

    def photos(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, dimension) of unit length to what cells are compared with: unit vectors (n, width), or normalised features."""
        found = self.norm(functional.normalize(vectors, dim=1))
        return functional.normalize(self.image(found), dim=1) if self.head == "embeddings" else found

    def logits(self, photos: torch.Tensor, level: int, cells: torch.Tensor | None = None) -> torch.Tensor:
        """Of what ``photos`` gives, (n, cells of the partition); or of these cells alone, given by number (m,)."""
        if self.head == "classifier":
            found = self.classes[level](photos)
            return found if cells is None else found[:, cells]
        return self.cosines(photos, level, cells) / self.log_temperature[level].exp()

    def cosines(self, photos: torch.Tensor, level: int, cells: torch.Tensor | None = None) -> torch.Tensor:
        """Likewise, of embeddings, before the temperature."""
        embeddings = self.cells[level] if cells is None else self.cells[level][cells]
        return photos @ functional.normalize(embeddings, dim=1).T

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.photos(vectors)
