"""What a photo's own candidates say of its place: a mixture of kernels round each, and that they may all be wrong.

    e(x) = Σ_c p_c Σ_k w_k g_k(|x - c|) + w_anywhere / (4 pi R²)

p_c says how likely candidate c is the nearest to the truth, w how far a system's candidates lie from it.
"""

from dataclasses import dataclass

import numpy as np

from geoloc.context.kernels import kernel_densities, mass_within

NEAR_KERNELS = 4
"""Those that lie mostly within 25 km."""
PRIOR_PHOTOS = 30
"""What is known of systems in general counts like so many photos of a collection."""


@dataclass(frozen=True)
class Emission:
    weights: tuple[float, ...]
    """Of each kernel, and of anywhere; they sum to 1."""

    @property
    def near(self) -> float:
        """The share of candidates within some 25 km of the truth."""
        return sum(self.weights[:NEAR_KERNELS])

    def with_near(self, share: float) -> "Emission":
        """The same shape near the truth and far from it, with another share of near ones."""
        factors = (share / self.near, (1 - share) / (1 - self.near))
        return Emission(tuple(w * factors[k >= NEAR_KERNELS] for k, w in enumerate(self.weights)))

    def density(self, squared: np.ndarray, blur_km: float = 0.0) -> np.ndarray:
        """(...) per km², at squared chords, km², from one candidate."""
        return kernel_densities(squared, blur_km) @ np.array(self.weights)

    def within(self, km: np.ndarray) -> np.ndarray:
        """(...) the probability that the truth lies within km of a candidate."""
        return mass_within(km) @ np.array(self.weights)

    @classmethod
    def of_errors(cls, squared: np.ndarray, steps: int = 200) -> "Emission":
        """By expectation maximisation over the squared chords (n,), km², between candidates and the truth."""
        densities = kernel_densities(squared)
        weights = np.full(densities.shape[-1], 1 / densities.shape[-1])
        for _ in range(steps):
            parts = densities * weights
            counts = (parts / parts.sum(-1, keepdims=True)).sum(0) + 0.1
            weights = counts / counts.sum()
        return cls(tuple(weights.tolist()))
