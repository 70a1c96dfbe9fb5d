"""A trained folder, opened: it is an index whose rows are cells, searched by what the model makes of a photo."""

import json
from pathlib import Path
from typing import Self

import numpy as np
import safetensors.torch
import torch

from geoloc.devices import to_device
from geoloc.errors import UsageError
from geoloc.geocells.inference import posterior
from geoloc.geocells.methods import Combine
from geoloc.geocells.model import Geocells
from geoloc.storage import describe

CARD, WEIGHTS, CELLS = "geocells.json", "geocells.safetensors", "cells.parquet"
LINEAGE = "lineage"
"""Among the weights: of each place its cell in every partition."""


class GeocellSearcher:
    """Scores are log probabilities over all places, divided by ``scale``: times that, they are a softmax's logits, as similarities of
    references are."""

    def __init__(self, model: Geocells, lineage: torch.Tensor, combine: Combine, scale: float) -> None:
        self._model, self._lineage, self._combine, self._scale = model, lineage, combine, scale

    @classmethod
    def open(cls, path: Path, device: torch.device | str, scale: float) -> Self:
        """Raises UsageError where the folder's tensors are not what its card says."""
        try:
            card, tensors = json.loads((path / CARD).read_bytes()), safetensors.torch.load_file(path / WEIGHTS)
            lineage = tensors.pop(LINEAGE).long()
            model = Geocells(card["dimension"], card["sizes"], card["options"]["head"], card["options"]["width"])
            model.load_state_dict(tensors)
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise UsageError(f"--index {path}: {WEIGHTS} does not fit {CARD} ({describe(error)})") from error
        model.eval().requires_grad_(False)
        return cls(model.to(device), lineage.to(device), card["options"]["combine"], scale)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Image vectors (n, d) to the k most probable places: scores (n, k) float32, descending, and rows (n, k)."""
        return self._extreme(queries, k, largest=True)

    def least(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k least probable, least first."""
        return self._extreme(queries, k, largest=False)

    @torch.inference_mode()
    def _extreme(self, queries: np.ndarray, k: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
        photos = self._model.photos(to_device(np.ascontiguousarray(queries), self._lineage.device))
        scores = posterior(self._model, photos, self._lineage, self._combine)
        found = scores.topk(k, dim=1, largest=largest)
        return (found.values / self._scale).cpu().numpy(), found.indices.cpu().numpy()
