"""From the cells of every partition to the places that are told apart: one score each, a logarithm (GeoSURGE §III-D)."""

import torch

from geoloc.geocells.methods import Combine
from geoloc.geocells.model import Geocells

_LEAST = 1e-12


def posterior(model: Geocells, photos: torch.Tensor, lineage: torch.Tensor, combine: Combine) -> torch.Tensor:
    """log probabilities (n, m) of m places, each of which is in one cell of every partition: ``lineage`` (m, levels).

    ``photos`` is what Geocells.photos gives. Of a product, the geometric mean: the order is the same, but partitions see one photo,
    and as if they were independent they would be far too sure together.
    """
    total: torch.Tensor | float = 0.0
    levels = range(lineage.shape[1])[-1 if combine == "finest" else 0 :]
    for level in levels:
        score = model.cosines(photos, level) if combine == "literal" else model.logits(photos, level)
        if combine == "literal":
            score = score.clamp(min=_LEAST).log()
        else:
            score = score.softmax(dim=1) if combine == "sum" else score.log_softmax(dim=1)
        total = total + score[:, lineage[:, level]]
    total = total / len(levels)
    return (total.clamp(min=_LEAST).log() if combine == "sum" else total).log_softmax(dim=1)
