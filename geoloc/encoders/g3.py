"""G3's released checkpoint as an alignment: the same tensors under other names, beside a copy of the CLIP that it was trained on.

A state dict of the released module (Applied-Machine-Learning-Lab/G3). Every tensor of it is used, compared or refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from geoloc.encoders.alignment import Alignment
from geoloc.errors import UsageError
from geoloc.storage import describe

UNUSED = ("logit_scale3", "vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")
"""A loss that the released code has switched off, and counts of transformers'."""
SAME = 1e-4
"""A frozen tower's weights may differ by half precision's rounding, and by no training."""
_HEADS = (
    (r"vision_projection_else_1\.", "image_to_text."),
    (r"vision_projection_else_2\.", "image_to_location."),
    (r"text_projection_else\.", "text."),
    (r"location_projection_else\.", "location."),
    (r"logit_scale1$", "text_scale"),
    (r"logit_scale2$", "location_scale"),
    (r"location_encoder\.LocEnc(\d)\.capsule\.0\.b$", r"location_encoder.capsules.\1.frequencies"),
    (r"location_encoder\.LocEnc(\d)\.capsule\.1\.", r"location_encoder.capsules.\1.layers.0."),
    (r"location_encoder\.LocEnc(\d)\.capsule\.3\.", r"location_encoder.capsules.\1.layers.2."),
    (r"location_encoder\.LocEnc(\d)\.capsule\.5\.", r"location_encoder.capsules.\1.layers.4."),
    (r"location_encoder\.LocEnc(\d)\.head\.0\.", r"location_encoder.capsules.\1.layers.6."),
)
_TOWERS = (
    (r"vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", "visual.ln_pre."),  # transformers' spelling
    (r"vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"text_model\.final_layer_norm\.", "ln_final."),
    (r"text_model\.encoder\.layers\.", "transformer.resblocks."),
)
_LAYERS = (
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.out_proj.", "attn.out_proj."),
)


def read_checkpoint(path: Path, tower: nn.Module) -> Alignment:
    """G3's ``g3.pth``, for an open_clip model with the weights of the CLIP it was trained on.

    Raises UsageError where the file is no such state dict, has other tensors, or was trained on another CLIP.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # a pickle fails in as many ways as it was made
        raise UsageError(
            f"SOURCE {path}: is no state dict of tensors, which alone are read ({describe(error)}); G3's g3.pth is one"
        ) from error
    try:
        dimension, text_dimension = (
            shapes["vision_projection_else_1.0.weight"][1],
            shapes["text_projection_else.0.weight"][1],
        )
    except KeyError as error:
        raise UsageError(f"SOURCE {path}: has no tensor {error}, which G3's checkpoint has") from error
    alignment = Alignment(dimension, text_dimension, "mercator")
    ours, theirs = _split(state)
    _check_tower(path, theirs, tower.state_dict())
    expected = {name: tuple(tensor.shape) for name, tensor in alignment.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise UsageError(
            f"SOURCE {path}: is no checkpoint of G3: {', '.join(wrong[:5])} missing, unknown or of another shape"
        )
    alignment.load_state_dict(ours)
    return alignment.eval().requires_grad_(False)


def _split(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The alignment's tensors by our names, and the CLIP's by theirs."""
    ours, theirs = {}, {}
    for name, tensor in state.items():
        if name in UNUSED:
            continue
        renamed = _renamed(name, _HEADS)
        if renamed is None and re.match(r"(vision|text)_(model\.|projection\.weight$)", name):
            theirs[name] = tensor
        else:
            ours[renamed or name] = tensor
    return ours, theirs


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return None


def _check_tower(path: Path, theirs: dict[str, torch.Tensor], tower: dict[str, torch.Tensor]) -> None:
    """Raises UsageError, naming the first tensor that differs. A checkpoint without its CLIP is taken at its word."""
    for name, ours in _of_tower(theirs, tower):
        tensor = theirs[name]
        if ours is None or ours.shape != tensor.shape or (ours.float() - tensor.float()).abs().max() > SAME:
            reason = (
                "is not there"
                if ours is None
                else f"is {tuple(ours.shape)}"
                if ours.shape != tensor.shape
                else "differs"
            )
            raise UsageError(
                f"SOURCE {path}: was trained on another CLIP than --encoder and --model name: {name} {reason} in that; G3's is "
                "OpenAI's ViT-L/14"
            )


def _of_tower(
    theirs: dict[str, torch.Tensor], tower: dict[str, torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor | None]]:
    """Each of transformers' names with open_clip's tensor for it: the same values, but that open_clip stacks an attention's three
    matrices, and multiplies projections from the other side."""
    for name in theirs:
        if name.endswith("_projection.weight"):
            ours = tower.get("visual.proj" if name.startswith("vision") else "text_projection")
            yield name, None if ours is None else ours.T
            continue
        renamed = _renamed(name, _TOWERS) or ""
        if found := re.match(r"(.*\.)self_attn\.([qkv])_proj\.(weight|bias)$", renamed):
            ours = tower.get(f"{found[1]}attn.in_proj_{found[3]}")
            yield name, None if ours is None else ours.chunk(3)["qkv".index(found[2])]
            continue
        for old, new in _LAYERS:
            renamed = renamed.replace(old, new)
        yield name, tower.get(renamed)
