"""Where each photo was, given all photos of its chain: forward-backward over a hidden Markov chain.

With e the emissions times the states' volumes, and T the transition between neighbours' states (Rabiner 1989, section V.A,
scaled at each step, which is as exact as logarithms and does without them):

    α_1 = e_1,  α_i = (α_{i-1} T_i) e_i;    β_n = 1,  β_i = T_{i+1} (e_{i+1} β_{i+1});    P_i ∝ α_i β_i
"""

import numpy as np

from geoloc.context.kernels import Table, chords2
from geoloc.context.states import BLOCK, KEPT, States


def posterior(states: States, emission: np.ndarray, gaps: np.ndarray, transitions: Table) -> tuple[np.ndarray, float]:
    """(n, s) probabilities, and the log-likelihood of all that was seen.

    ``emission`` (n, s) float32, with volumes, 0 for states that are not there; every photo has some. ``gaps`` (n,): the
    row of ``transitions`` between each photo and the one before; ``transitions`` (gaps, pairs of kinds, steps): by how
    many of the two states are candidates.
    """
    n = len(emission)
    scale = emission.max(1)
    emission = emission / scale[:, None]
    forward, likelihood = np.empty_like(emission), float(np.log(scale, dtype=np.float64).sum())
    sums, ones = (
        np.empty(n),
        np.ones(emission.shape[1], np.float32),
    )  # a product with ones is a sum in a quarter of the time
    kept: dict[int, np.ndarray] = {}
    for start in range(0, n, BLOCK):
        steps = _steps(states, start, gaps, transitions)
        if n <= KEPT:
            kept[start] = steps
        for i, step in enumerate(steps, start):
            here = emission[0] if i == 0 else (forward[i - 1] @ step) * emission[i]
            sums[i] = total = here.dot(ones)
            np.divide(here, total, out=forward[i])
    likelihood += float(np.log(sums).sum())
    backward = np.ones_like(emission)
    last = n - 1
    for start in range(last // BLOCK * BLOCK, -1, -BLOCK):
        steps = kept.pop(start) if kept else _steps(states, start, gaps, transitions)
        for i in range(start + len(steps) - 1, max(start, 1) - 1, -1):
            before = steps[i - start] @ (emission[i] * backward[i])
            np.divide(before, before.dot(ones), out=backward[i - 1])
    both = np.multiply(forward, backward, dtype=np.float64)  # what one calls unlikely the other may call certain
    return np.divide(both, both.sum(1, keepdims=True), out=forward, casting="same_kind"), likelihood


def _steps(states: States, start: int, gaps: np.ndarray, transitions: Table) -> np.ndarray:
    """(m, s, s) from the states of the photo before to those of each photo of a block."""
    part = slice(start, start + BLOCK)
    before = np.maximum(np.arange(start, start + len(gaps[part])) - 1, 0)
    steps = Table.steps(chords2(states.points[before], states.points[part]))
    steps += (states.kind[before].astype(np.int32) * transitions.width)[:, :, None]
    steps += (states.kind[part].astype(np.int32) * transitions.width)[:, None]
    steps += (gaps[part].astype(np.int32) * (transitions.values.shape[1] * transitions.width))[:, None, None]
    return transitions.values.ravel()[steps]
