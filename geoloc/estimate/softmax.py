"""Softmax regression with a ridge: from a few features to the probabilities of a few classes."""

from dataclasses import dataclass
from typing import Self

import numpy as np

_PENALTY = 1.0
"""On squared weights, a photo's worth of log likelihood each."""
_CLIP = 5.0
"""Standardised features beyond this are no evidence for more."""


@dataclass(frozen=True)
class SoftmaxRegression:
    mean: np.ndarray
    """(f,)"""
    std: np.ndarray
    weights: np.ndarray
    """(1 + f, classes): the first row is the bias."""

    @classmethod
    def fitted(cls, table: np.ndarray, truth: np.ndarray, classes: int) -> Self:
        """Features (n, f) and the class (n,) of each."""
        from scipy.optimize import minimize  # a second to import, and only fitting needs it

        mean, std = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
        inputs, shape = _standardised(table, mean, std), (table.shape[1] + 1, classes)
        arguments = inputs, np.eye(classes)[truth]
        best = minimize(_loss, np.zeros(shape).ravel(), arguments, "L-BFGS-B", jac=True, options={"maxiter": 500})
        return cls(mean, std, best.x.reshape(shape))

    def probabilities(self, table: np.ndarray) -> np.ndarray:
        """(n, classes)."""
        return np.exp(_log_softmax(_standardised(table, self.mean, self.std) @ self.weights))


def _standardised(table: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """With a column of ones for the bias before it."""
    return np.column_stack([np.ones(len(table)), np.clip((table - mean) / std, -_CLIP, _CLIP)])


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _loss(flat: np.ndarray, inputs: np.ndarray, truth: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy with a ridge on everything but the bias, and its gradient."""
    weights = flat.reshape(inputs.shape[1], truth.shape[1])
    logs = _log_softmax(inputs @ weights)
    ridge = _PENALTY * weights
    ridge[0] = 0
    loss = (-(truth * logs).sum() + (ridge * weights).sum()) / len(inputs)
    gradient = (inputs.T @ (np.exp(logs) - truth) + 2 * ridge) / len(inputs)
    return float(loss), gradient.ravel()
