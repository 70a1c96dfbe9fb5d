"""How far one person's next photo lies from the one before, by the time between them, or by the gap in a sequence.

Kalogerakis et al. (ICCV 2009, section 4) count moves in bins of time and place. Here the density of the next place is a
mixture of kernels round the place before (geoloc.context.kernels), from the same spot to anywhere, whose weights change
with the gap g:

    weight_k(g) = softmax_k(intercept_k + slope_k · (log10 g + offset))
"""

from dataclasses import dataclass, replace

import numpy as np

from geoloc.context.kernels import ANYWHERE, Table, kernel_densities
from geoloc.geo.distance import EARTH_RADIUS_KM

DECADES = np.linspace(-3, 12, 121)
"""log10 of the gaps that tables are made for."""

AIRLINER_KM_PER_MINUTE = 1000 / 60
SLACK_KM = 2.0
"""Nobody is faster, but for this."""


@dataclass(frozen=True)
class Transition:
    intercepts: tuple[float, ...]
    """Of each kernel, and of anywhere."""
    slopes: tuple[float, ...]
    offset: float = 0.0
    """Decades between the gaps that are given and those that were learned from."""
    temper: float = 1.0
    """Power of the density: neighbours say less than they would if each were a witness of its own."""
    timed: bool = False
    """Gaps are minutes: no kernel reaches further than an airliner does in them, and anywhere is as much less likely as what is
    within its reach is less than the Earth."""

    def weights(self, log_gap: float | np.ndarray) -> np.ndarray:
        """(..., kernels) at log10 gaps (...)."""
        logits = np.array(self.intercepts) + np.array(self.slopes) * (np.asarray(log_gap)[..., None] + self.offset)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def density(self, squared: np.ndarray, log_gap: float, blur_km: float = 0.0) -> np.ndarray:
        """(...) per km² at squared chords, km², for one gap; not tempered."""
        weights = self.weights(log_gap)
        if not self.timed:
            return kernel_densities(squared, blur_km) @ weights
        reach = SLACK_KM + AIRLINER_KM_PER_MINUTE * 10.0**log_gap
        weights[-1] *= min(1.0, reach / (np.pi * EARTH_RADIUS_KM)) ** 2
        return kernel_densities(squared, blur_km, reach) @ weights

    def table(self, blurs_km: tuple[float, ...]) -> Table:
        """(len(DECADES) + 1, len(blurs_km), steps), tempered; the last of the first axis is that of no connection."""

        def values(squared: np.ndarray) -> np.ndarray:
            known = np.array([[self.density(squared, gap, blur) for blur in blurs_km] for gap in DECADES])
            none = np.full((1, *known.shape[1:]), ANYWHERE)
            return np.concatenate([known, none]) ** self.temper

        return Table.of(values)

    def moved(self, decades: float) -> "Transition":
        """The same for gaps in another unit."""
        return replace(self, offset=self.offset + decades)


UNCONNECTED = len(DECADES)
"""The row of a table for two photos of which one says nothing of the other."""


def rows_of(log_gaps: np.ndarray) -> np.ndarray:
    """The row of a table for each log10 gap: the nearest; NaN is UNCONNECTED."""
    step = DECADES[1] - DECADES[0]
    near = np.clip(np.rint((np.nan_to_num(log_gaps) - DECADES[0]) / step), 0, len(DECADES) - 1)
    return np.where(np.isnan(log_gaps), UNCONNECTED, near).astype(np.int64)


def learned(log_gaps: np.ndarray, squared: np.ndarray) -> Transition:
    """Of maximum likelihood, with a slight pull of the slopes to 0: ``log_gaps`` (n,) log10 of gaps between neighbours of
    public sequences, ``squared`` (n,) chords between their places, km²."""
    import torch  # for this alone

    logs, densities = torch.tensor(log_gaps), torch.tensor(kernel_densities(squared)).log()
    middle = float(np.median(log_gaps))
    intercepts = torch.zeros(densities.shape[1], dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros_like(intercepts, requires_grad=True)
    optimizer = torch.optim.LBFGS([intercepts, slopes], max_iter=400, line_search_fn="strong_wolfe")

    def loss() -> "torch.Tensor":
        optimizer.zero_grad()
        weights = torch.log_softmax(intercepts + slopes * (logs[:, None] - middle), -1)
        value = -torch.logsumexp(weights + densities, -1).mean() + 1e-4 * (slopes**2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    here, change = intercepts.detach().numpy(), slopes.detach().numpy()
    return Transition(tuple((here - change * middle).tolist()), tuple(change.tolist()))
