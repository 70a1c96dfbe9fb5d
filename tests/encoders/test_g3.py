"""G3's checkpoint, of a module with the released one's names: transformers' CLIP, the package geoclip's location encoder, heads."""

import json
import pickle

import numpy as np
import open_clip
import pytest
import torch
from geoclip.model.location_encoder import LocationEncoder
from torch import nn
from transformers import CLIPConfig, CLIPModel

from geoloc.encoders.config import encoder_config
from geoloc.encoders.g3 import read_checkpoint
from geoloc.encoders.image import ImageEncoder
from geoloc.errors import UsageError
from geoloc.geo.projections import mercator
from geoloc.toy.models import write_clip
from geoloc.training.alignment import train_alignment
from geoloc.training.job_options import AlignmentOptions

WIDTH = 48
"""Of the common space; 768 in G3, of texts too."""


def head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))


class Released(nn.Module):
    """With its tensors' names, and its features."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.vision_model, self.text_model = clip.vision_model, clip.text_model
        self.vision_projection, self.text_projection = clip.visual_projection, clip.text_projection
        self.location_encoder = LocationEncoder(from_pretrained=False)
        self.vision_projection_else_1, self.vision_projection_else_2 = head(WIDTH, WIDTH), head(WIDTH, WIDTH)
        self.text_projection_else, self.location_projection_else = head(WIDTH, WIDTH), head(512, WIDTH)
        for number, scale in enumerate((3.1, 4.2, 0.5), 1):
            self.register_parameter(f"logit_scale{number}", nn.Parameter(torch.tensor(scale)))

    def images(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        features = self.vision_projection(self.vision_model(pixel_values=pixels).pooler_output)
        heads = (self.vision_projection_else_1, self.vision_projection_else_2)
        return [nn.functional.normalize(one(features), dim=1) for one in heads]

    def locations(self, coordinates: torch.Tensor) -> torch.Tensor:
        projected = mercator(coordinates)
        summed = sum(getattr(self.location_encoder, f"LocEnc{i}")(projected) for i in range(3))
        return nn.functional.normalize(self.location_projection_else(summed), dim=1)


def as_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' CLIP by open_clip's names, as open_clip's own documentation of the two layouts has it."""
    found = {}
    for kind, prefix in (("vision_model", "visual."), ("text_model", "")):
        layer = 0
        while f"{kind}.encoder.layers.{layer}.layer_norm1.weight" in state:
            theirs, ours = f"{kind}.encoder.layers.{layer}", f"{prefix}transformer.resblocks.{layer}"
            for part in ("weight", "bias"):
                stacked = [state[f"{theirs}.self_attn.{name}_proj.{part}"] for name in "qkv"]
                found[f"{ours}.attn.in_proj_{part}"] = torch.cat(stacked)
                names = ("layer_norm1 ln_1", "layer_norm2 ln_2", "mlp.fc1 mlp.c_fc", "mlp.fc2 mlp.c_proj")
                for old, new in [*(pair.split() for pair in names), ("self_attn.out_proj", "attn.out_proj")]:
                    found[f"{ours}.{new}.{part}"] = state[f"{theirs}.{old}.{part}"]
            layer += 1
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
    }
    for part in ("weight", "bias"):
        names |= {f"visual.ln_pre.{part}": f"vision_model.pre_layrnorm.{part}"}
        names |= {f"visual.ln_post.{part}": f"vision_model.post_layernorm.{part}"}
        names |= {f"ln_final.{part}": f"text_model.final_layer_norm.{part}"}
    found |= {ours: state[theirs] for ours, theirs in names.items()}
    return found | {
        "visual.proj": state["vision_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
    }


@pytest.fixture(scope="module")
def released() -> Released:
    torch.manual_seed(3)
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    vision |= {"intermediate_size": 256, "hidden_act": "gelu"}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    config = CLIPConfig(text_config=text | {"hidden_act": "gelu"}, vision_config=vision, projection_dim=WIDTH)
    return Released(CLIPModel(config)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(released, tmp_path_factory) -> str:
    """The same CLIP as open_clip has it."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("clip")
    name = write_clip(folder, dimension=WIDTH)
    weights = load_file(folder / "open_clip_model.safetensors")
    weights |= {key: value.contiguous() for key, value in as_open_clip(released.state_dict()).items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return name


@pytest.fixture
def checkpoint(released, tmp_path):
    torch.save(released.state_dict(), tmp_path / "g3.pth")
    return tmp_path / "g3.pth"


def test_features_are_the_released_ones(released, model, checkpoint, tmp_path, random):
    """From its one file to an encoder that `--encoder` takes."""
    options = AlignmentOptions(str(checkpoint), str(tmp_path / "out"), "lite", model, from_checkpoint=True)
    assert train_alignment(options) == 0
    config = encoder_config(str(tmp_path / "out"))
    assert config.similarity_scale == pytest.approx(np.exp(4.2), rel=1e-6)
    pixels = random.integers(0, 255, (3, 64, 64, 3), np.uint8)
    mean, std = (torch.tensor(v) * 255 for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    expected = released.images(((torch.from_numpy(pixels) - mean) / std).permute(0, 3, 1, 2))
    vectors = ImageEncoder(config).encode(pixels)
    for number, part in enumerate(expected, 1):
        assert np.allclose(vectors[:, number * WIDTH : (number + 1) * WIDTH], part.numpy(), atol=1e-5)
    coordinates = torch.tensor([[48.85, 2.35], [-33.9, 151.2], [0.0, -179.9]])
    alignment = read_checkpoint(checkpoint, open_clip.create_model(model))
    found = alignment.encode_locations(*coordinates.numpy().T)
    assert np.allclose(found, released.locations(coordinates).numpy(), atol=1e-5)
    assert json.loads((tmp_path / "out" / "alignment.json").read_text())["training"]["checkpoint"] == "g3.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("logit_scale2"), "is no checkpoint of G3: location_scale missing, unknown"),
        (lambda state: state.update(extra=torch.ones(2)), "is no checkpoint of G3: extra missing, unknown"),
        (lambda state: state.pop("text_projection_else.0.weight"), "has no tensor 'text_projection_else.0.weight'"),
        (
            lambda state: state["vision_model.encoder.layers.1.self_attn.k_proj.weight"].add_(0.01),
            r"trained on another CLIP .*: vision_model\.encoder\.layers\.1\.self_attn\.k_proj\.weight differs",
        ),
        (lambda state: state.update({"text_model.new.weight": torch.ones(2)}), "text_model.new.weight is not there"),
        (
            lambda state: state.update({"text_projection.weight": torch.ones(2, 2)}),
            r"text_projection.weight is \(48, 32\)",
        ),
    ],
)
def test_what_is_no_checkpoint_of_it_is_refused(released, model, tmp_path, change, message):
    state = {name: tensor.clone() for name, tensor in released.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "g3.pth")
    with pytest.raises(UsageError, match=message):
        read_checkpoint(tmp_path / "g3.pth", open_clip.create_model(model))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_no_code_is_run_from_it(model, tmp_path, capsys):
    (tmp_path / "g3.pth").write_bytes(pickle.dumps({"vision_projection_else_1.0.weight": Evil()}))
    with pytest.raises(UsageError, match="is no state dict of tensors"):
        read_checkpoint(tmp_path / "g3.pth", open_clip.create_model(model))
    assert "run" not in capsys.readouterr().out
