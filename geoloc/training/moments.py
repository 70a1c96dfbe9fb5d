"""An optimizer's state in a file that holds nothing but tensors."""

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

FILE = "optimizer.safetensors"
Named = Sequence[tuple[str, nn.Parameter]]


def save_moments(folder: Path, named: Named, optimizer: torch.optim.Optimizer) -> None:
    moments = {
        f"{name}.{key}": value.contiguous()
        for name, parameter in named
        for key, value in optimizer.state[parameter].items()
    }
    safetensors.torch.save_file(moments, folder / FILE)


def load_moments(folder: Path, named: Named, optimizer: torch.optim.Optimizer) -> None:
    moments = safetensors.torch.load_file(folder / FILE)
    for name, parameter in named:
        keys = [key for key in moments if key.rpartition(".")[0] == name]
        state = {key.rpartition(".")[2]: moments[key] for key in keys}
        optimizer.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
        }
