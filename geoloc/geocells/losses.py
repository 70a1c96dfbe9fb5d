"""What a photo's cell is told from, at one partition (GeoSURGE §III-C; PlaNet §3; PIGEON §3.2)."""

import torch
from torch.nn import functional

NOWHERE = -1
"""The number of the cell of a photo that is in none."""


def among_batch(logits: torch.Tensor, own: torch.Tensor, batch: torch.Tensor, masked: bool) -> torch.Tensor:
    """InfoNCE of n photos against the cells of a batch's photos; (n,), 0 for a photo that is in no cell.

    ``logits`` (n, b) are the photos' with the cell of each of the b photos of the batch, ``batch`` (b,) the numbers of those cells,
    NOWHERE for those that are in none, and ``own`` (n,) each photo's place in the batch. ``masked``: other photos of the same cell
    are no negatives.

    >>> among_batch(torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([0]), torch.tensor([7, 3, 7]), masked=True).round(decimals=4)
    tensor([0.3133])
    """
    cell = batch[own]
    out = (batch == NOWHERE)[None, :].expand(len(own), -1)
    if masked:
        others = torch.arange(len(batch), device=batch.device)[None, :] != own[:, None]
        out = out | ((batch[None, :] == cell[:, None]) & others)
    there = cell != NOWHERE
    losses = functional.cross_entropy(logits[there].masked_fill(out[there], -torch.inf), own[there], reduction="none")
    return torch.zeros(len(own), dtype=losses.dtype, device=losses.device).masked_scatter(there, losses)


def among_all(logits: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of n photos over all cells (n, m); (n,), 0 for a photo that is in no cell.

    >>> among_all(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([1, -1])).round(decimals=4)
    tensor([0.3133, 0.0000])
    """
    return functional.cross_entropy(logits, cell, ignore_index=NOWHERE, reduction="none")


def smoothed(logits: torch.Tensor, km: torch.Tensor, cell: torch.Tensor, smoothing_km: float) -> torch.Tensor:
    """Cross-entropy with PIGEON's haversine smoothing: sum over cells i of -w_i log p_i, w_i = exp(-(km_i - km_own) / smoothing_km).

    ``km`` (n, m) are the photos' distances to the cells' places, ``cell`` (n,) their own. A cell that is nearer than the photo's own
    weighs no more than that. (n,), 0 for a photo that is in no cell.

    >>> smoothed(torch.tensor([[0.0, 1.0]]), torch.tensor([[75.0, 0.0]]), torch.tensor([1]), 75).round(decimals=4)
    tensor([0.7964])
    """
    there = cell != NOWHERE
    own = km.gather(1, cell.clamp(min=0)[:, None])
    weights = torch.exp(-(km - own).clamp(min=0) / smoothing_km)
    return -(weights * functional.log_softmax(logits, dim=1)).sum(dim=1) * there
