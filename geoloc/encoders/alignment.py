"""G3's geo-alignment: heads that bring image features near to words about the place, and near to its coordinates.

Two spaces, each with an image head of its own: image→text against the text head, image→location against the location
encoder and its projection (G3 §3.2; GeoRanker §3.1). All widths follow from the encoders'. The towers are frozen.
"""

import json
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from geoloc.devices import to_device
from geoloc.encoders.config import ALIGNMENT, PARTS, WEIGHTS
from geoloc.encoders.location import LOCATION_DIMENSION, LocationEncoder
from geoloc.errors import UsageError
from geoloc.storage import Folder, describe

SCALE = 3.99
"""Initial logit scales, as logarithms: exp is 54.05."""


class Alignment(nn.Module):
    def __init__(self, image_dimension: int, text_dimension: int, projection: str = "mercator") -> None:
        """Location weights are GeoCLIP's; the frequencies of its Fourier features stay as they are."""
        super().__init__()
        d = image_dimension
        self.image_to_text = _mlp(d, d, d)
        self.image_to_location = _mlp(d, d, d)
        self.text = _mlp(text_dimension, text_dimension, d)
        self.location_encoder = LocationEncoder.geoclip(projection).requires_grad_(True).train()
        self.location = _mlp(LOCATION_DIMENSION, LOCATION_DIMENSION, d)
        self.text_scale = nn.Parameter(torch.tensor(SCALE))
        self.location_scale = nn.Parameter(torch.tensor(SCALE))

    def images(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, d) to its unit vectors in text space and in location space."""
        return tuple(
            functional.normalize(head(features), dim=1) for head in (self.image_to_text, self.image_to_location)
        )

    @torch.inference_mode()
    def encode_locations(self, lat: np.ndarray, lon: np.ndarray, batch: int = 4096) -> np.ndarray:
        """(n,) latitudes and longitudes in degrees to (n, d) float32, rows of unit length."""
        coordinates = to_device(np.stack([lat, lon], axis=1).astype(np.float32), self.text_scale.device)
        parts = [self.locations(part) for part in coordinates.split(batch)]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def encode_texts(self, features: np.ndarray) -> np.ndarray:
        """(n, text dimension) to (n, d) float32, rows of unit length."""
        return self.texts(torch.from_numpy(features).to(self.text_scale.device)).cpu().numpy()

    def texts(self, features: torch.Tensor) -> torch.Tensor:
        return functional.normalize(self.text(features), dim=1)

    def locations(self, coordinates: torch.Tensor) -> torch.Tensor:
        """(n, 2) of (lat, lon), degrees, to unit vectors (n, d)."""
        return functional.normalize(self.location(self.location_encoder(coordinates)), dim=1)

    def forward(
        self, image_features: torch.Tensor, text_features: torch.Tensor, coordinates: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unit vectors: the images' in text and in location space, the texts', the locations'."""
        return *self.images(image_features), self.texts(text_features), self.locations(coordinates)


@dataclass(frozen=True)
class Losses:
    text: torch.Tensor
    location: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        return self.text + self.location


def info_nce(
    left: torch.Tensor,
    right: torch.Tensor,
    scale: torch.Tensor,
    false_negatives: torch.Tensor | None = None,
    queue: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric cross-entropy of n pairs of unit vectors (n, d), row i with row i (CLIP; G3 §3.2).

    ``false_negatives`` (n, n) bool are pairs of other rows that are left out of the denominators; ``queue`` (q, d)
    more negatives for ``left`` (GeoCLIP §3.3). 0 for no pairs.

    >>> info_nce(torch.eye(2), torch.eye(2), torch.tensor(0.0)).round(decimals=4)  # log(1 + exp(-1))
    tensor(0.3133)
    """
    if not len(left):
        return scale * 0 + left.sum() + right.sum()  # so that every parameter has a gradient, on every worker
    logits = scale.exp() * left @ right.T
    if false_negatives is not None:
        logits = logits.masked_fill(false_negatives, -torch.inf)
    target = torch.arange(len(left), device=left.device)
    forth = logits if queue is None else torch.cat([logits, scale.exp() * left @ queue.T], dim=1)
    return (functional.cross_entropy(forth, target) + functional.cross_entropy(logits.T, target)) / 2


def alignment_loss(
    alignment: Alignment,
    vectors: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    has_text: torch.Tensor,
    false_negatives: torch.Tensor | None = None,
    queue: torch.Tensor | None = None,
) -> Losses:
    """G3's: InfoNCE of images and texts, plus InfoNCE of images and locations, each symmetric, each with its own scale.

    ``vectors`` are what ``Alignment.forward`` gives for n photos, ``has_text`` (n,) bool those with words: the others are
    dropped from the text term only. There is no third term between texts and locations.
    """
    image_text, image_location, text, location = vectors
    among = None if false_negatives is None else false_negatives[has_text][:, has_text]
    return Losses(
        info_nce(image_text[has_text], text[has_text], alignment.text_scale, among),
        info_nce(image_location, location, alignment.location_scale, false_negatives, queue),
    )


def same_place(coordinates: torch.Tensor, within_km: float) -> torch.Tensor:
    """(n, n) bool: other photos of (nearly) the same place, which are no honest negatives. The diagonal is False.

    >>> same_place(torch.tensor([[48.85, 2.35], [48.86, 2.35], [40.71, -74.01]]), within_km=25)[0]
    tensor([False,  True, False])
    """
    lat, lon = torch.deg2rad(coordinates.double()).unbind(1)
    points = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=1)
    near = torch.cdist(points, points) < 2 * torch.sin(torch.tensor(within_km / 6371.0088 / 2))
    return near.fill_diagonal_(False)


def load_alignment(folder: Folder) -> Alignment:
    """A trained one, frozen. Raises UsageError where the folder's tensors are not what its card says."""
    card = json.loads(folder.read(ALIGNMENT))
    alignment = Alignment(card["image_dimension"], card["text_dimension"], card["training"]["projection"])
    try:
        alignment.load_state_dict(safetensors.torch.load(folder.read(WEIGHTS)))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise UsageError(f"--encoder {folder.uri}: {WEIGHTS} does not fit {ALIGNMENT} ({describe(error)})") from error
    return alignment.eval().requires_grad_(False)


def keep_parts(vectors: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
    """Aligned vectors (n, 3 d) without the parts that are not named: those count for nothing in an inner product.

    >>> keep_parts(np.ones((1, 6)), ("image", "location"))
    array([[1., 1., 0., 0., 1., 1.]])
    """
    width = vectors.shape[1] // len(PARTS)
    kept = vectors.copy()
    for number, part in enumerate(PARTS):
        if part not in parts:
            kept[:, number * width : (number + 1) * width] = 0
    return kept


def part_of(vectors: np.ndarray, part: str) -> np.ndarray:
    """One part (n, d) of aligned vectors (n, 3 d).

    >>> part_of(np.arange(6).reshape(1, 6), "text")
    array([[2, 3]])
    """
    width = vectors.shape[1] // len(PARTS)
    at = PARTS.index(part) * width
    return vectors[:, at : at + width]


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
