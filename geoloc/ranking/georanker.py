"""GeoRanker: a vision-language model that reads a photo and a candidate and scores how near they are (GeoRanker §3.2).

Any Qwen2-VL folder (or a relative with the same parts) without its language-model head, and a value head without bias on
the last position's final hidden state. Fine-tuning adds LoRA to the language model's attention; vision tower and the rest
stay as they are. An adapter is a PEFT folder that holds the LoRA tensors and the value head, some 27 MB for a 7 B model.
"""

import re
from pathlib import Path

import peft
import safetensors
import safetensors.torch
import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from geoloc.errors import UsageError
from geoloc.storage import describe

TARGETS = r".*language_model\.layers\.\d+\.self_attn\.[qkv]_proj"
"""The language model's; a vision tower's attention has other names, and stays frozen."""
ADAPTER = "adapter_model.safetensors"


class GeoRanker(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        """``model`` is a transformers image-text model without language-model head."""
        super().__init__()
        width = model.config.get_text_config().hidden_size
        self.model = model
        self.value_head = nn.Linear(width, 1, bias=False, dtype=model.dtype, device=model.device)
        nn.init.normal_(self.value_head.weight, std=(1 / (width + 1)) ** 0.5)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """A processor's output for n prompts, padded on the left, to scores (n,) float32: closeness, highest is nearest."""
        states = self.model(**inputs, use_cache=False).last_hidden_state
        return self.value_head(states[:, -1]).squeeze(-1).float()


def load_base(
    folder: str, dtype: torch.dtype = torch.float32, device: str = "cpu", checkpointing: bool = False
) -> GeoRanker:
    """An untuned ranker from a model folder. Raises UsageError where there is none that can be used.

    ``checkpointing``: compute activations twice instead of keeping them, to train in less memory.
    """
    try:
        whole = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, attn_implementation="sdpa"
        )
    except Exception as error:  # the hub, the file system and the model's own code each fail in their own way
        raise UsageError(f"--ranker-model {folder}: cannot load it ({describe(error)})") from error
    if not hasattr(whole.model, "language_model"):
        raise UsageError(f"--ranker-model {folder}: is no model like Qwen2-VL (it has no language_model part)")
    if checkpointing:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
    return GeoRanker(whole.model.to(device))


def with_new_adapter(ranker: GeoRanker, rank: int = 16, alpha: int = 32, dropout: float = 0.05) -> peft.PeftModel:
    """Made ready for fine-tuning: LoRA on q, k and v of the language model, and the value head, are trained."""
    return peft.get_peft_model(ranker, _lora(rank, alpha, dropout))


def save_adapter(tuned: peft.PeftModel, folder: Path) -> None:
    """LoRA and value head as a PEFT folder."""
    tuned.save_pretrained(folder, safe_serialization=True)


def with_adapter(ranker: GeoRanker, folder: Path) -> peft.PeftModel:
    """With a trained adapter, frozen: one of ``save_adapter``, or GeoRanker's released one.

    Raises UsageError unless every tensor of the adapter has its place in the model, and every place its tensor: PEFT
    alone would leave what it does not recognise untrained, and say nothing.
    """
    try:
        config = peft.LoraConfig.from_pretrained(str(folder))
        tensors = safetensors.torch.load_file(folder / ADAPTER)
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise UsageError(f"--ranker-adapter {folder}: cannot read it ({describe(error)})") from error
    tuned = peft.get_peft_model(ranker, _lora(config.r, config.lora_alpha, config.lora_dropout))
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
        raise UsageError(f"--ranker-adapter {folder}: does not fit the model: {'; '.join(what)}")
    peft.set_peft_model_state_dict(tuned, found)
    return tuned.eval().requires_grad_(False)


def _lora(rank: int, alpha: int, dropout: float) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=TARGETS, modules_to_save=["value_head"]
    )


def _present_name(name: str) -> str:
    """Older transformers had the language model's layers directly under ``model``."""
    return re.sub(r"^base_model\.model\.model\.layers\.", "base_model.model.model.language_model.layers.", name)
