"""Fitting a light ranker, and judging it on photographers that it has not seen (Pinpoint's one-step reranker)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from geoloc.ranking.light import LightRanker, listwise_loss, reward

BATCH, LR, WEIGHT_DECAY = 256, 2e-3, 1e-3
"""pinpoint-rl's, whose 1,500 steps are over all photos at once, which takes ten times as long."""
FOLDS = 5


@dataclass(frozen=True)
class Questions:
    """n photos of known place, and the places of their pools."""

    evidence: np.ndarray
    """(n, p, f) float32."""
    there: np.ndarray
    """(n, p) bool."""
    km: np.ndarray
    """(n, p) from where the photo was taken; infinite where there is no place."""
    group: np.ndarray
    """(n,) equal for photos of one photographer."""

    def __len__(self) -> int:
        return len(self.group)

    def of(self, rows: np.ndarray) -> "Questions":
        return Questions(self.evidence[rows], self.there[rows], self.km[rows], self.group[rows])


def fit(questions: Questions, seed: int, steps: int) -> LightRanker:
    """AdamW on the listwise loss. The same questions and seed give the same ranker."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = LightRanker(questions.evidence.shape[2])
        seen = torch.from_numpy(questions.evidence[questions.there])
        ranker.mean.copy_(seen.mean(dim=0))
        ranker.deviation.copy_(seen.std(dim=0).clamp(min=1e-6))
        evidence, there = torch.from_numpy(questions.evidence), torch.from_numpy(questions.there)
        rewards = torch.from_numpy(np.where(questions.there, reward(questions.km), 0).astype(np.float32))
        optimizer = torch.optim.AdamW(ranker.parameters(), LR, weight_decay=WEIGHT_DECAY)
        for rows in _batches(len(questions), steps):
            loss = listwise_loss(ranker(evidence[rows]), rewards[rows], there[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return ranker.eval()


def cross_fitted(questions: Questions, seed: int, steps: int) -> np.ndarray:
    """Scores (n, p) of every photo by a ranker that has seen no photo of its photographer's; -inf where there is no place."""
    scores = np.full(questions.there.shape, -np.inf, np.float32)
    for held_out in _folds(questions.group, seed):
        ranker = fit(questions.of(~held_out), seed, steps)
        scores[held_out] = ranker.score(questions.evidence[held_out])
    return np.where(questions.there, scores, -np.inf)


def _folds(group: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """(n,) bool, FOLDS times: every photo once, and all of a group together."""
    groups, number = np.unique(group, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(groups)) % FOLDS
    return (fold[number] == held_out for held_out in range(FOLDS) if (fold[number] == held_out).any())


def _batches(photos: int, steps: int) -> Iterator[torch.Tensor]:
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < min(BATCH, photos):
            waiting = torch.cat([waiting, torch.randperm(photos)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]
