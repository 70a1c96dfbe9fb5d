"""Which of a photo's candidates is it? Choosers score them by what retrieval knows; the highest score is the answer."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.geo.distance import haversine_km
from geoloc.index.store import IndexInfo
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.light_folder import LightInfo, read_light
from geoloc.ranking.scorers import Chooser, Score
from geoloc.storage import Folder, S3Options

if TYPE_CHECKING:
    from geoloc.ranking.light import ScoreEvidence

AMBIENT = S3Options()
"""S3 as its environment finds it."""


@dataclass(frozen=True)
class Top1(Chooser):
    """The most similar reference (nearest neighbour; GeoRanker §4.5 "Top-1")."""

    name: ClassVar[str] = "top1"

    def scale(self, config: EncoderConfig) -> float:
        return config.similarity_scale

    def load(self, config: EncoderConfig, device: str = "cpu", s3: S3Options = AMBIENT) -> Score:
        return _similarity


@dataclass(frozen=True)
class Density(Chooser):
    """The candidate where most candidates are: the mode of a kernel density over their coordinates ([L]kNN, Vo 2017)."""

    name: ClassVar[str] = "density"
    sigma_km: float = 445.0
    """Width of the kernel. The paper's sigma is 4 with no unit given; read as degrees of latitude that is 445 km."""

    def check(self, config: EncoderConfig, candidates: int, s3: S3Options) -> None:
        if self.sigma_km <= 0:
            raise UsageError(f"--density-sigma-km {self.sigma_km}: must be above 0")

    def load(self, config: EncoderConfig, device: str = "cpu", s3: S3Options = AMBIENT) -> Score:
        return functools.partial(_density, config.similarity_scale, self.sigma_km)


@dataclass(frozen=True)
class Verification(Chooser):
    """The candidate whose encoded coordinates lie nearest to the image in location space (G3 §3.4, GeoCLIP)."""

    name: ClassVar[str] = "verification"
    retrieved: int | None = None
    """Of the retrieved candidates, so many of the most similar; None for all. G3's code has one beside the generated ones."""

    def check(self, config: EncoderConfig, candidates: int, s3: S3Options) -> None:
        if not config.has_location_space:
            raise UsageError(
                f"--chooser verification: encoder {config.name} has no location space to compare images and coordinates "
                "in; use --chooser top1 or density, or --encoder geoclip or a trained alignment"
            )

    def scale(self, config: EncoderConfig) -> float:
        return config.similarity_scale

    def load(self, config: EncoderConfig, device: str = "cpu", s3: S3Options = AMBIENT) -> Score:
        from geoloc.ranking.verification import location_cosine  # needs torch, which reading options does without

        return functools.partial(_verified, location_cosine(config, device), self.retrieved)


@dataclass(frozen=True)
class Generated(Chooser):
    """What the model says: the candidate that most of its replies name, the first of equals (Img2Loc; GeoRanker §4.5 "Prompting").

    A photo of which it names none has the most similar reference.
    """

    name: ClassVar[str] = "generated"

    def load(self, config: EncoderConfig, device: str = "cpu", s3: S3Options = AMBIENT) -> Score:
        return functools.partial(_voted, config.similarity_scale)


@dataclass(frozen=True)
class Light(Chooser):
    """A small network puts the places of a pool in order by their evidence, from one or several indexes (Pinpoint's one-step
    reranker; geoloc.ranking.light)."""

    name: ClassVar[str] = "light"
    paths: ClassVar[tuple[str, ...]] = ("folder",)
    folder: str | None = None
    """From train_light.py, s3:// or local."""

    def check(self, config: EncoderConfig, candidates: int, s3: S3Options) -> None:
        self._info(s3)

    def check_indexes(self, infos: Sequence[IndexInfo], candidates: int, s3: S3Options) -> None:
        self._info(s3).check(infos, candidates, self.folder)

    def settings(self, candidates: int, s3: S3Options) -> dict:
        return {"fingerprint": self._info(s3).fingerprint}

    def pooling(self, s3: S3Options) -> Pooling:
        return self._info(s3).pooling

    def load(self, config: EncoderConfig, device: str = "cpu", s3: S3Options = AMBIENT) -> Score:
        from geoloc.ranking.light import load_light  # needs torch, which reading options does without

        return functools.partial(_by_evidence, load_light(Folder(self.folder, s3), self._info(s3)))

    def _info(self, s3: S3Options) -> LightInfo:
        if self.folder is None:
            raise UsageError(f"--light-ranker: a recipe with the chooser {self.name} needs it")
        return read_light(Folder(self.folder, s3))


_LESS = 1e-3
"""Of a logarithm, by which what was retrieved weighs less than what was said."""
CHOOSERS: dict[str, type[Chooser]] = {kind.name: kind for kind in (Top1, Density, Verification, Generated, Light)}


def _similarity(photos: np.ndarray, candidates: Candidates) -> np.ndarray:
    return np.where(candidates.row >= 0, candidates.similarity, -np.inf).astype(np.float32)


def _by_evidence(score: "ScoreEvidence", photos: np.ndarray, candidates: Candidates) -> np.ndarray:
    return np.where(candidates.row >= 0, score(candidates.evidence), -np.inf).astype(np.float32)


def _verified(cosine: Score, retrieved: int | None, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
    if retrieved is not None:
        row = np.where(np.arange(candidates.row.shape[1]) < retrieved, candidates.row, -1)
        candidates = dataclasses.replace(candidates, row=row)
    return cosine(photos, candidates)


def _voted(similarity_scale: float, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
    """log of each candidate's share of the votes. The retrieved ones that have none weigh together as much as the votes do, but each
    less than what has most: they never answer, but where they lie tells how sure the answer is."""
    similar = similarity_scale * _similarity(photos, candidates)
    if candidates.votes is None:
        return similar.astype(np.float32)
    asked, voted = candidates.votes.any(axis=1, keepdims=True), candidates.votes > 0
    shares = _log_shares(candidates.votes)
    below = np.minimum(_log_softmax(similar), shares.max(axis=1, keepdims=True) - _LESS)
    return np.where(asked, np.where(voted, shares, below), similar).astype(np.float32)


def _log_shares(votes: np.ndarray) -> np.ndarray:
    """Of each in its row; -inf where it has none."""
    with np.errstate(divide="ignore"):
        return np.log(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1))


def _density(similarity_scale: float, sigma_km: float, photos: np.ndarray, candidates: Candidates) -> np.ndarray:
    """log density_i = log sum_j w_j exp(-d_ij² / 2 sigma²), w the softmax of the similarities.

    Replies of a model weigh together as much as the retrieved candidates do, and each as much as another.
    """
    known = candidates.known
    logits = np.where(candidates.row >= 0, similarity_scale * candidates.similarity, -np.inf)
    if candidates.votes is not None:
        logits = np.logaddexp(_log_softmax(logits), _log_shares(candidates.votes))
    lat, lon = candidates.lat, candidates.lon
    km = haversine_km(lat[:, :, None], lon[:, :, None], lat[:, None, :], lon[:, None, :])
    exponent = logits[:, None, :] - km**2 / (2 * sigma_km**2)
    top = exponent.max(axis=2, keepdims=True)
    density = top[..., 0] + np.log(np.exp(exponent - top).sum(axis=2))
    return np.where(known, density, -np.inf).astype(np.float32)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along rows; a row of -inf stays one."""
    top = np.maximum(logits.max(axis=1, keepdims=True), -1e30)
    return logits - top - np.log(np.maximum(np.exp(logits - top).sum(axis=1, keepdims=True), 1e-300))
