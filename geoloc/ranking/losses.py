"""GeoRanker's multi-order distance loss: candidates are to be ranked by how near they are, and so are their differences.

Distances are kilometres, scores are closeness (highest is nearest), over (queries, candidates). Everything is float32 and
by log-sum-exp, so that it is finite where the released code overflows. GeoRanker §3.3; its code is the default where the
paper says otherwise, because it made the published weights.
"""

from typing import Literal

import torch

SecondOrder = Literal["code", "paper"]
_NOTHING = -1e30
"""A logit that weighs nothing, and has a gradient of 0 where -inf has none."""


def multi_order_distance_loss(
    scores: torch.Tensor,
    distances_km: torch.Tensor,
    k: int | None = 1,
    weight: float = 0.7,
    second_order: SecondOrder = "code",
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """``weight`` x first order + (1 - ``weight``) x second order, the mean over queries; a scalar.

    ``scores`` and ``distances_km`` (q, g); ``mask`` (q, g) bool where there is a candidate (default: everywhere), at
    least one a query. ``k`` nearest candidates are ranked (None: all). Equal distances keep their order.

    >>> multi_order_distance_loss(torch.zeros(1, 2), torch.tensor([[5.0, 900.0]])).round(decimals=4)  # 0.7 log 2
    tensor(0.4852)
    """
    first = first_order_loss(scores, distances_km, k, mask)
    second = second_order_loss(scores, distances_km, k, second_order, mask)
    return (weight * first + (1 - weight) * second).mean()


def first_order_loss(
    scores: torch.Tensor, distances_km: torch.Tensor, k: int | None = 1, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Partial Plackett-Luce over candidates, nearest first, for each query (q,):
    the mean over i <= k of ``-(s_i - log sum_{j >= i} exp s_j)``.

    >>> first_order_loss(torch.zeros(1, 2), torch.tensor([[5.0, 900.0]])).round(decimals=4)  # log 2
    tensor([0.6931])
    """
    scores, _, there = _by_distance(scores, distances_km, mask)
    ranked = there if k is None else there & (torch.arange(scores.shape[1], device=scores.device) < k)
    return _plackett_luce(scores, ranked)


def second_order_loss(
    scores: torch.Tensor,
    distances_km: torch.Tensor,
    k: int | None = 1,
    second_order: SecondOrder = "code",
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same over pairs of candidates, largest gap in distance first, for each query (q,); 0 where there is no pair.

    ``code``: the pairs whose nearer candidate is among the ``k`` nearest, ranked among themselves. ``paper`` (eq. 3-4):
    as many pairs, but those with the largest gaps of all, ranked among all.

    >>> second_order_loss(torch.zeros(1, 3), torch.tensor([[5.0, 80.0, 900.0]])).round(decimals=4)  # (log 2 + 0) / 2
    tensor([0.3466])
    """
    scores, distances, there = _by_distance(scores, distances_km, mask)
    nearer, farther = torch.triu_indices(scores.shape[1], scores.shape[1], 1, device=scores.device)
    real = there[:, nearer] & there[:, farther]
    of_the_nearest = real if k is None else real & (nearer < k)
    taken = of_the_nearest if second_order == "code" else real
    gap = torch.where(taken, distances[:, farther] - distances[:, nearer], -torch.inf)
    order = torch.sort(gap, dim=1, descending=True, stable=True).indices
    difference = torch.where(taken, scores[:, nearer] - scores[:, farther], _NOTHING).gather(1, order)
    number = of_the_nearest.sum(dim=1, keepdim=True)
    return _plackett_luce(difference, torch.arange(len(nearer), device=scores.device) < number)


def _by_distance(
    scores: torch.Tensor, distances: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, distances and which are there, nearest first; what is not there comes last and weighs nothing."""
    there = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    distances = torch.where(there, distances, torch.inf)
    distances, order = torch.sort(distances, dim=1, stable=True)
    there = there.gather(1, order)
    return torch.where(there, scores.float().gather(1, order), _NOTHING), distances, there


def _plackett_luce(logits: torch.Tensor, ranked: torch.Tensor) -> torch.Tensor:
    """For rows of logits in their true order, the mean of ``log sum_{j >= i} exp l_j - l_i`` over ``ranked`` places."""
    if not logits.shape[1]:
        return logits.sum(dim=1)
    rest = torch.logcumsumexp(logits.flip(1), dim=1).flip(1)
    terms = torch.where(ranked, rest - logits, 0)
    return terms.sum(dim=1) / ranked.sum(dim=1).clamp(min=1)
