"""From this machine's memory to a device's."""

import numpy as np
import torch


def to_device(values: np.ndarray | torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Without waiting for what the device is at: by way of pages that it can fetch by itself."""
    values = torch.as_tensor(values)
    if torch.device(device).type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
