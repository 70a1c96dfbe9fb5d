"""What the package `geoclip` carries: trained weights, and a gallery of coordinates."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geoloc.errors import UsageError


def geoclip_weights(file: str) -> torch.Tensor | dict[str, torch.Tensor]:
    return torch.load(_package() / "model" / "weights" / file, map_location="cpu", weights_only=True)


def geoclip_gallery() -> tuple[np.ndarray, np.ndarray]:
    """GeoCLIP's 100,000 gallery coordinates, each place once: (lat, lon), 94,123 each, in the file's order.

    The file names 4,290 places several times, central London 37 times. The package therefore gives such a place several of
    the top rows, each with its share of the softmax over 100,000 rows; here a place is one candidate, and a softmax is over
    94,123. Which place is first, second and so on is the same.
    """
    table = pd.read_csv(_package() / "model" / "gps_gallery" / "coordinates_100K.csv").drop_duplicates()
    return table["LAT"].to_numpy(), table["LON"].to_numpy()


def _package() -> Path:
    spec = importlib.util.find_spec("geoclip")
    if spec is None:
        raise UsageError("--encoder geoclip: needs the package `geoclip` (pip install geoclip)")
    return Path(spec.submodule_search_locations[0])
