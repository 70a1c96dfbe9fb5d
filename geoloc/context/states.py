"""Where each photo may have been: the places of its own and of its neighbours, each standing for the ground round it.

A photo's states are its candidates, its own fix, the fixes nearest before and after it in its chain, and the places of
the photos nearest to it: their fix, or their first candidate. As the states were not drawn evenly over the Earth, each
counts by the inverse of the density q of such draws at its place (importance sampling):

    q(x) = 1/n Σ_j k_j(|x - x_j|),    k_j: an emission round a candidate, a transition round a fix

so that ten photos that all name one city do not make it ten times as likely before anything is known, and a place that is
named twice counts once.
"""

import functools
from dataclasses import dataclass

import numpy as np

from geoloc.context.chains import Evidence
from geoloc.context.kernels import ANYWHERE, Table, chords2

FIXES, PLACES = 2, 7
"""Taken from before a photo, and from after it."""
BLOCK = 128
"""Photos at a time whose states are compared: what that takes stays in a processor's cache."""
KEPT = 50_000
"""Photos up to which what states are compared by is kept for the next time, some 4 kB each; of more it is worked out again."""

FIX, CANDIDATE = 0, 1
"""What a state is of."""


@dataclass(frozen=True)
class States:
    points: np.ndarray
    """(n, s, 3) float32 unit vectors."""
    present: np.ndarray
    """(n, s) bool: chains are short, and photos have few candidates."""
    kind: np.ndarray
    """(n, s) FIX or CANDIDATE."""
    source: np.ndarray
    """(n, s) the photo it is of."""

    @classmethod
    def of(cls, evidence: Evidence) -> "States":
        """Those of photos in the order of their chains."""
        n, candidates = evidence.shares.shape
        fixed, seen = evidence.fixed, evidence.shares[:, 0] > 0
        place = np.where(fixed[:, None], evidence.fixes, evidence.candidates[:, 0]).astype(np.float32)
        near = [_nearest(fixed, evidence.chain, FIXES), _nearest(fixed | seen, evidence.chain, PLACES)]
        near = np.concatenate(near, axis=1).astype(np.int32)
        others = np.maximum(near, 0)
        own = np.broadcast_to(np.arange(n, dtype=np.int32)[:, None], (n, candidates + 1))
        own_kind = np.broadcast_to(np.repeat([CANDIDATE, FIX], [candidates, 1]), own.shape)
        return cls(
            np.concatenate([evidence.candidates, evidence.fixes[:, None], place[others]], axis=1, dtype=np.float32),
            np.concatenate([evidence.shares > 0, fixed[:, None], near >= 0], axis=1),
            np.concatenate([own_kind, np.where(fixed, FIX, CANDIDATE)[others]], axis=1, dtype=np.int8),
            np.concatenate([own, others], axis=1),
        )

    def volumes(self, shapes: Table, power: float) -> np.ndarray:
        """(n, s) float32: the ground that each state stands for, km², to a power; 0 where there is none.

        ``shapes`` (2, steps): the density round a FIX, and round a CANDIDATE.
        """
        volumes = np.zeros(self.present.shape, np.float32)
        table, width = shapes.values.ravel(), shapes.width
        for start in range(0, len(volumes), BLOCK):
            part = slice(start, start + BLOCK)
            steps = self.apart(start) + (self.kind[part].astype(np.int32) * width)[:, None]
            drawn = np.einsum("nst,nt->ns", table[steps], self.present[part].astype(np.float32))
            drawn /= np.maximum(self.present[part].sum(1, keepdims=True), 1)
            volumes[part] = self.present[part] * (drawn + 0.01 * ANYWHERE) ** -power
        return volumes

    def apart(self, start: int) -> np.ndarray:
        """(m, s, s) of a block's photos: where the squared chords between states of one photo are looked up (Table.steps)."""
        found = self._apart.get(start)
        if found is None:
            part = slice(start, start + BLOCK)
            found = Table.steps(chords2(self.points[part], self.points[part]))
            if len(self.points) <= KEPT:
                self._apart[start] = found.astype(np.int16)
        return found

    @functools.cached_property
    def _apart(self) -> dict[int, np.ndarray]:
        return {}


def _nearest(has: np.ndarray, chain: np.ndarray, most: int) -> np.ndarray:
    """(n, 2 most) photos that have something, of the same chain: the nearest ``most`` before each and after it; -1 for none."""
    those = np.flatnonzero(has)
    before = np.searchsorted(those, np.arange(len(has)), "left")
    after = np.searchsorted(those, np.arange(len(has)), "right")
    at = np.concatenate([before[:, None] - 1 - np.arange(most), after[:, None] + np.arange(most)], axis=1)
    inside = (at >= 0) & (at < len(those))
    if not len(those):
        return np.full(at.shape, -1)
    near = those[np.where(inside, at, 0)]
    return np.where(inside & (chain[near] == chain[:, None]), near, -1)
