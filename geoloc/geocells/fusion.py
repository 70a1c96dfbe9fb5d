"""What a photo looks like and what is in it, in one vector: CLIP's tokens fused with a map of classes (GeoSURGE §III-B).

The paper's figure of "latent multi-head attention" cites a language model whose keys and values pass through a narrow latent; the
query stream has the paper's 128 dimensions all the way, which is how the block's shapes close.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class FusionOptions:
    """The paper's (§IV)."""

    blocks: int = 3
    classes: int = 150
    """Of the map: ADE20K's. Ids of this and above are none of them, and leave their pixels out."""
    patch: int = 14
    """Pixels of a side of the map that one token stands for."""
    side: int = 24
    """Tokens of a side."""
    tokens: int = 1024
    """Width of the image's tokens."""
    query: int = 128
    """Width of the map's tokens."""
    latent: int = 64
    """Width that keys and values pass through."""
    heads: int = 8
    width: int = 768
    """Of the vector that comes out."""


class SemanticFusion(nn.Module):
    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        self.options = options
        o = options
        area = o.patch * o.patch
        # one row more, of nothing, for pixels of no class
        self.classes = nn.EmbeddingBag(o.classes * area + 1, o.query, mode="sum", padding_idx=o.classes * area)
        nn.init.normal_(self.classes.weight, std=(area * o.query) ** -0.5)
        with torch.no_grad():
            self.classes.weight[-1] = 0
        self.bias = nn.Parameter(torch.zeros(o.query))
        self.cls = nn.Parameter(torch.randn(o.query) * 0.02)
        self.positions = nn.Parameter(torch.randn(o.side * o.side + 1, o.query) * 0.02)
        self.blocks = nn.ModuleList(FusionBlock(o.query, o.tokens, o.latent, o.heads) for _ in range(o.blocks))
        self.norm = nn.LayerNorm(o.query)
        self.out = nn.Linear(o.query, o.width)

    def forward(self, tokens: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Tokens (n, 1 + side², tokens) of an image, CLS first, and the map of its classes (n, side patch, side patch) uint8, to
        vectors (n, width)."""
        stream = self.embed(maps)
        for block in self.blocks:
            stream = block(stream, tokens)
        return self.out(self.norm(stream[:, 0]))

    def embed(self, maps: torch.Tensor) -> torch.Tensor:
        """(n, h, w) class ids to tokens (n, 1 + side², query): a strided convolution of the classes' indicators, as a sum of table
        rows."""
        o = self.options
        n = len(maps)
        patches = (
            maps.reshape(n, o.side, o.patch, o.side, o.patch).transpose(2, 3).reshape(-1, o.patch * o.patch).long()
        )
        rows = torch.arange(o.patch * o.patch, device=maps.device) * o.classes + patches
        rows = torch.where(patches < o.classes, rows, o.classes * o.patch * o.patch)
        found = self.classes(rows).view(n, o.side * o.side, o.query) + self.bias
        return torch.cat([self.cls.expand(n, 1, -1), found], dim=1) + self.positions


class FusionBlock(nn.Module):
    """x + attention of LN(x) on the image's tokens; then x + MLP of LN(x)."""

    def __init__(self, query: int, tokens: int, latent: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(query)
        self.query = nn.Linear(query, query)
        self.latent = nn.Linear(tokens, latent)
        self.key, self.value = nn.Linear(latent, query), nn.Linear(latent, query)
        self.out = nn.Linear(query, query)
        self.norm_mlp = nn.LayerNorm(query)
        self.mlp = nn.Sequential(nn.Linear(query, 4 * query), nn.GELU(), nn.Linear(4 * query, query))

    def forward(self, stream: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(n, t, query) and (n, s, tokens) to (n, t, query)."""
        latent = self.latent(tokens)
        parts = (self.query(self.norm(stream)), self.key(latent), self.value(latent))
        attended = functional.scaled_dot_product_attention(*(self._split(part) for part in parts))
        stream = stream + self.out(attended.transpose(1, 2).flatten(2))
        return stream + self.mlp(self.norm_mlp(stream))

    def _split(self, part: torch.Tensor) -> torch.Tensor:
        """(n, t, d) to (n, heads, t, d / heads)."""
        return part.unflatten(2, (self.heads, -1)).transpose(1, 2)
