"""GeoRanker: a vision-language model that reads a photo and a candidate and scores how near they are (GeoRanker §3.2).

Any Qwen2-VL folder (or a relative with the same parts) without its language-model head, and a value head without bias on
the last position's final hidden state. Fine-tuning adds LoRA to the language model's attention; vision tower and the rest
stay as they are. An adapter is a PEFT folder that holds the LoRA tensors and the value head, some 27 MB for a 7 B model.
"""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import peft
import safetensors
import safetensors.torch
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, ProcessorMixin
from transformers.vision_utils import (
    get_max_seqlen,
    get_vision_attention_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from geoloc.columns import plain
from geoloc.devices import to_device
from geoloc.errors import UsageError
from geoloc.ranking.attention import OF_PACKS, OF_PICTURES, has_kernel
from geoloc.ranking.hub import HubFolder, is_on_hub
from geoloc.ranking.options import ADAPTER, CONFIG, RankerOptions
from geoloc.ranking.packing import Grid, Pack
from geoloc.ranking.pictures import Patcher
from geoloc.ranking.scorers import RankerFacts
from geoloc.storage import Folder, describe

_BASE = "geoloc_base"
"""In an adapter's metadata: the identity of the model that it was trained on."""
_FAMILIES = ("qwen2vl", "qwen25vl", "qwen3vl")
TARGETS = r".*language_model\.layers\.\d+\.self_attn\.[qkv]_proj"
"""The language model's; a vision tower's attention has other names, and stays frozen."""


class GeoRankerModel(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        """``model`` is a transformers image-text model without language-model head."""
        super().__init__()
        width = model.config.get_text_config().hidden_size
        self.model = model
        self.identity = _identity(model)
        """Of the base: two models with the same are the same to an adapter, in whatever precision they are loaded."""
        self.value_head = _ValueHead(width, 1, bias=False, device=model.device)
        nn.init.normal_(self.value_head.weight, std=1 / (width + 1))  # as released; usual is the square root

    def forward(self, pack: Pack) -> torch.Tensor:
        """Scores (c,) float32 of a pack's candidates: closeness, highest is nearest."""
        language = self.model.language_model
        states = language.embed_tokens(pack.ids)
        states = states.index_copy(0, pack.image_tokens, pack.images.to(states))
        states = language(
            inputs_embeds=states[None],
            position_ids=pack.positions,
            attention_mask=dict.fromkeys(("full_attention", "sliding_attention")),
            use_cache=False,
            layout=pack.layout,
        ).last_hidden_state
        return self.value_head(states[0, pack.last]).squeeze(-1)

    @property
    def kernel(self) -> bool:
        """Whether packs may be made for the kernel, where no gradients are wanted."""
        return has_kernel(str(self.model.device), self.model.dtype)

    def encode_images(self, patches: torch.Tensor, grids: Sequence[Grid]) -> list[torch.Tensor]:
        """The features of images, (tokens, width) each, by the vision tower. ``patches`` (sum of rows x columns, …) of
        geoloc.ranking.pictures."""
        visual, thw = self.model.visual, torch.tensor([(1, *grid) for grid in grids])
        told = {"position_ids": get_vision_position_ids(thw, visual.spatial_merge_size)}
        told["cu_seqlens"], longest = get_vision_attention_seqlens(thw, visual.config)
        longest = {"max_seqlen": longest}
        if hasattr(visual, "window_size"):  # Qwen2.5-VL
            sizes = {name: getattr(visual, name) for name in ("spatial_merge_size", "window_size", "patch_size")}
            told["window_index"], bounds = get_vision_window_index(thw, **sizes)
            told["cu_window_seqlens"] = bounds
            longest["max_window_seqlen"] = get_max_seqlen(bounds, visual.config)
        # all of it is known here, and would be asked of the device, layer by layer
        told = {name: to_device(tensor, patches.device) for name, tensor in told.items()}
        told |= {name: value for name, value in longest.items() if value is not None}
        features = visual(patches.to(visual.dtype), thw, **told).pooler_output
        return list(features.split([rows * columns // visual.spatial_merge_size**2 for rows, columns in grids]))

    def pairs(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Scores (n,) of n prompts by themselves, a processor's output padded on the left: what a pack's are measured by."""
        states = self.model(**inputs, use_cache=False).last_hidden_state
        return self.value_head(states[:, -1]).squeeze(-1)


class _ValueHead(nn.Linear):
    """Works in float32, whatever the model works in: scores of candidates differ by less than bfloat16 tells apart."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(states.float(), self.weight.float())


def _identity(model: nn.Module) -> str:
    """Architecture, and a digest of the first row, or number, of every tensor of the language model, in bfloat16."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.language_model.named_parameters():
        digest.update(name.encode())
        digest.update(tensor[:1].detach().to("cpu", torch.bfloat16).view(torch.uint8).numpy().tobytes())
    return f"{model.config.model_type} {digest.hexdigest()}"


def load_base(
    folder: str, dtype: torch.dtype = torch.float32, device: str = "cpu", checkpointing: bool = False
) -> GeoRankerModel:
    """An untuned ranker from a model folder. Raises UsageError where there is none that can be used.

    ``checkpointing``: compute activations twice instead of keeping them, to train in less memory.
    """
    device_type = torch.device(device).type
    try:
        if device_type == "cuda":
            _check_memory(folder, dtype)
            torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for every new shape, slowly, and keeps it
        whole, loading = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": device},
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except UsageError:
        raise
    except Exception as error:  # the hub, the file system and the model's own code each fail in their own way
        raise UsageError(f"--ranker-model {folder}: cannot load it ({describe(error)})") from error
    _check_whole(folder, loading["missing_keys"])
    if not hasattr(whole.model, "language_model") or not hasattr(whole.model, "get_rope_index"):
        raise UsageError(f"--ranker-model {folder}: is no model like Qwen2-VL (it has no language_model part)")
    if hasattr(whole.model.visual, "deepstack_visual_indexes"):
        raise UsageError(
            f"--ranker-model {folder}: shows its pictures to several layers at once, like Qwen3-VL; take a Qwen2-VL or "
            "Qwen2.5-VL"
        )
    whole.model.language_model.config._attn_implementation = OF_PACKS
    if device_type != "cuda" or has_kernel(str(whole.device), dtype):
        whole.model.visual.config._attn_implementation = OF_PICTURES
    if checkpointing:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
    return GeoRankerModel(whole.model)


def _check_whole(folder: str, missing: set[str]) -> None:
    """Transformers would fill what a file lacks with random numbers, and warn. The language-model head is not used."""
    lacking = sorted(name for name in missing if not name.startswith("lm_head"))
    if lacking:
        raise UsageError(
            f"--ranker-model {folder}: {len(lacking)} of its tensors are lacking, such as {lacking[0]}; copy it again"
        )


def _check_memory(folder: str, dtype: torch.dtype) -> None:
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    needed = sum(parameter.numel() for parameter in whole.parameters()) * dtype.itemsize
    free, total = torch.cuda.mem_get_info()
    if needed > free:
        raise UsageError(
            f"--ranker-model {folder}: needs {needed / 2**30:.1f} GB of GPU memory in {dtype}, and {free / 2**30:.1f} of "
            f"{total / 2**30:.1f} GB are free: take a smaller model, or a GPU of its own"
        )


def check_ranker(options: RankerOptions) -> RankerFacts:
    """What the ranker looks at, and a fingerprint of its model and adapter; reads no weights but the adapter's.

    Raises UsageError where there is no such ranker, or its adapter is another model's.
    """
    processor = load_processor(options.model)
    try:
        config = AutoConfig.from_pretrained(options.model, trust_remote_code=False)
    except Exception as error:  # as in load_base
        raise UsageError(f"--ranker-model {options.model}: cannot load it ({describe(error)})") from error
    view = Patcher.of(processor.image_processor).view(options.prompt.min_pixels, options.prompt.max_pixels)
    digest = hashlib.blake2b(config.to_json_string().encode(), digest_size=16)
    digest.update(str(getattr(config, "_commit_hash", None)).encode())  # the revision of a model of the hub
    for file in sorted(Path(options.model).glob("*.safetensors")):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        digest.update(_sample(file))
    if options.adapter:
        _, data, trained_on = _read_adapter(options.adapter)
        _check_base(options.model, config.model_type, options.adapter, trained_on)
        digest.update(data)
    return RankerFacts(view, digest.hexdigest())


def _sample(file: Path, pieces: int = 16, size: int = 1 << 16) -> bytes:
    """Bytes from all over a file that is too long to be read whole; its first say what tensors it has."""
    last = max(0, file.stat().st_size - size)
    with file.open("rb") as stream:
        return b"".join(stream.read(size) for number in range(pieces) if stream.seek(last * number // pieces) >= 0)


def load_processor(folder: str) -> ProcessorMixin:
    """The model's tokenizer, chat template and image settings. Raises UsageError."""
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as above
        raise UsageError(f"--ranker-model {folder}: cannot load its processor ({describe(error)})") from error
    if not hasattr(getattr(processor, "image_processor", None), "merge_size") or not processor.chat_template:
        raise UsageError(f"--ranker-model {folder}: its processor has no chat template, or no images like Qwen2-VL's")
    return processor


def with_new_adapter(ranker: GeoRankerModel, rank: int = 16, alpha: int = 32, dropout: float = 0.05) -> peft.PeftModel:
    """Made ready for fine-tuning: LoRA on q, k and v of the language model, and the value head, are trained."""
    return peft.get_peft_model(ranker, _lora(rank, alpha, dropout), autocast_adapter_dtype=False)


def save_adapter(tuned: peft.PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """LoRA and value head as a PEFT folder; ``weights`` by parameter name, where the model's own are not the best."""
    tensors = peft.get_peft_model_state_dict(tuned, weights)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    base = tuned.get_base_model()
    safetensors.torch.save_file(tensors, folder / ADAPTER, {"format": "pt", _BASE: base.identity})
    config, name = copy.copy(tuned.peft_config["default"]), base.model.name_or_path
    config.base_model_name_or_path = name if is_on_hub(name) else Path(name).name
    config.save_pretrained(folder)


def with_adapter(ranker: GeoRankerModel, folder: Folder | HubFolder) -> peft.PeftModel:
    """With a trained adapter, frozen: one of ``save_adapter``, or GeoRanker's released one.

    Raises UsageError unless every tensor of the adapter has its place in the model, and every place its tensor: PEFT
    alone would leave what it does not recognise untrained, and say nothing. Nor where it was trained on another base.
    """
    lora, data, name = _read_adapter(folder)
    try:
        tensors = safetensors.torch.load(data)
        trained_on = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}).get(_BASE)
    except safetensors.SafetensorError as error:
        raise UsageError(f"--ranker-adapter {folder.uri}: cannot read {ADAPTER} ({describe(error)})") from error
    if trained_on not in (None, ranker.identity):
        raise UsageError(
            f"--ranker-adapter {folder.uri}: was trained on another base model ({name}) than "
            f"--ranker-model {ranker.model.name_or_path}, whose tensors differ"
        )
    tuned = peft.get_peft_model(ranker, lora, autocast_adapter_dtype=False)
    wanted = {name: tensor.shape for name, tensor in peft.get_peft_model_state_dict(tuned).items()}
    found = {_present_name(name): tensor for name, tensor in tensors.items()}
    lacking, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    misshapen = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name].shape)
    if lacking or strange or misshapen:
        what = [
            f"{len(names)} tensors {how}, such as {names[0]}"
            for names, how in ((lacking, "are lacking"), (strange, "have no place"), (misshapen, "have another shape"))
            if names
        ]
        raise UsageError(f"--ranker-adapter {folder.uri}: does not fit the model: {'; '.join(what)}")
    peft.set_peft_model_state_dict(tuned, found)
    return tuned.eval().requires_grad_(False)


def _check_base(model: str, model_type: str, adapter: Folder | HubFolder, trained_on: str | None) -> None:
    """What names tell of the base an adapter was trained on; shapes alone do not tell Qwen2-VL from Qwen2.5-VL."""
    families = [family for family in _FAMILIES if family in plain(trained_on or "")]
    another = families and families[0] != plain(model_type)
    on_hub = [name for name in (model, trained_on) if name and is_on_hub(name)]
    if another or len({name.rsplit("/", 1)[-1] for name in on_hub}) == 2:
        raise UsageError(
            f"--ranker-adapter {adapter.uri}: was trained on {trained_on}, and --ranker-model {model} is another model "
            f"({model_type})"
        )


def _read_adapter(folder: Folder | HubFolder) -> tuple[peft.LoraConfig, bytes, str | None]:
    """Its configuration, its tensors as they lie in the file, and what it calls its base model."""
    try:
        config = json.loads(folder.read(CONFIG))
        lora, data = _lora(config["r"], config["lora_alpha"], dropout=0.0), folder.read(ADAPTER)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--ranker-adapter {folder.uri}: cannot read it ({describe(error)})") from error
    if config.get("use_rslora") or config.get("use_dora"):
        raise UsageError(f"--ranker-adapter {folder.uri}: is a rsLoRA or DoRA adapter; only plain LoRA is understood")
    return lora, data, config.get("base_model_name_or_path")


def _lora(rank: int, alpha: int, dropout: float) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=TARGETS, modules_to_save=["value_head"]
    )


def _present_name(name: str) -> str:
    """Older transformers had the language model's layers directly under ``model``."""
    return re.sub(r"^base_model\.model\.model\.layers\.", "base_model.model.model.language_model.layers.", name)
