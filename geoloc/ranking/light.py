"""A light ranker: a small network that puts a pool's places in order by their evidence alone, in microseconds a photo.

After the one-step reranker of pinpoint-rl (Pinpoint, arXiv 2606.04133).
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import safetensors.torch
import torch
from torch import nn

from geoloc.errors import UsageError
from geoloc.ranking.evidence import REGION, feature_names
from geoloc.ranking.light_folder import NETWORK, WEIGHTS, LightInfo
from geoloc.storage import Folder, describe

REACH_KM = 1492.7
"""Of GeoGuessr's score on a map of the world."""
HIDDEN = 64

ScoreEvidence = Callable[[np.ndarray], np.ndarray]
"""Evidence (n, p, f) to scores (n, p) float32, whose softmax weighs a photo's places against each other."""


class LightRanker(nn.Module):
    """Standardised features to a score: three layers, GELU between them; 5,249 parameters for 15 features.

    >>> sum(parameter.numel() for parameter in LightRanker(15).parameters())
    5249
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.layers = nn.Sequential(
            nn.Linear(features, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, evidence: torch.Tensor) -> torch.Tensor:
        """(…, features) to (…)."""
        return self.layers((evidence - self.mean) / self.deviation)[..., 0]

    @torch.inference_mode()
    def score(self, evidence: np.ndarray) -> np.ndarray:
        """(n, p, features) to (n, p) float32."""
        return self(torch.from_numpy(np.ascontiguousarray(evidence, np.float32))).numpy()

    def to_bytes(self) -> bytes:
        return safetensors.torch.save(self.state_dict())


def load_light(folder: Folder, info: LightInfo) -> ScoreEvidence:
    """Raises UsageError where its weights cannot be read, or are not those that ``info`` tells of."""
    if info.model != NETWORK:
        return fixed_rule(info.kinds, info.scale, info.pooling.prior_weight)
    try:
        content = folder.read(WEIGHTS)
        if checksum(content) != info.weights:
            raise ValueError("its checksum differs")
        ranker = LightRanker(len(feature_names(info.kinds)))
        ranker.load_state_dict(safetensors.torch.load(content))
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise UsageError(f"--light-ranker {folder.uri}: cannot read {WEIGHTS} ({describe(error)})") from error
    return ranker.eval().score


def checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def fixed_rule(kinds: Sequence[str], scale: float, prior_weight: float) -> ScoreEvidence:
    """``scale`` x (similarity + ``prior_weight`` ln(P(region) + 0.01)), by the first list of photos, or the first there is."""
    names = feature_names(kinds)
    best = names.index("photos best" if "photos" in kinds else f"{kinds[0]} best")
    region = names.index(REGION)
    return lambda evidence: scale * (evidence[..., best] + prior_weight * evidence[..., region])


def reward(km: np.ndarray) -> np.ndarray:
    """What an answer so far off is worth: exp(-km / 1492.7), and a half each below 25 km and below 1 km.

    >>> reward(np.array([0.5, 10.0, 1492.7, np.inf])).round(4)
    array([1.9997, 1.4933, 0.3679, 0.    ])
    """
    return np.exp(-km / REACH_KM) + 0.5 * (km < 25) + 0.5 * (km < 1)


def listwise_loss(scores: torch.Tensor, rewards: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """The mean over photos of -sum softmax(score) x reward, over the places (n, p) that are ``there``.

    >>> listwise_loss(torch.zeros(1, 3), torch.tensor([[1.5, 0.5, 9.0]]), torch.tensor([[True, True, False]]))
    tensor(-1.)
    """
    chosen = torch.softmax(scores.masked_fill(~there, -1e30), dim=1)
    return -(chosen * rewards).sum(dim=1).mean()
