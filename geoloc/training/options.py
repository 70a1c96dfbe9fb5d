"""What a training run is set to. Reading it needs neither Ray nor torch."""

from dataclasses import dataclass
from typing import Literal

from geoloc.errors import UsageError


@dataclass(frozen=True)
class TrainingOptions:
    """G3's settings (run_G3.py) are the defaults."""

    epochs: int = 10
    """Passes over the photos."""
    batch_size: int = 256
    """Photos a step, over all workers: each is a negative for all others."""
    lr: float = 3e-5
    """Learning rate of AdamW in the first epoch."""
    weight_decay: float = 1e-6
    """Of AdamW."""
    gamma: float = 0.87
    """The learning rate is multiplied by this after every epoch."""
    projection: Literal["mercator", "equal_earth"] = "mercator"
    """What the location encoder sees: G3's, or GeoCLIP's, whose weights it starts from."""
    queue: int = 0
    """Coordinates of earlier photos that are negatives too (GeoCLIP: 4096)."""
    same_place_km: float = 0
    """Photos nearer to each other than this are no negatives for each other, km (0: all are, as in G3)."""
    seed: int = 0
    """Of the shuffling and of the heads' first weights."""
    workers: int | None = None
    """Training processes, a GPU each if there are GPUs (default: as many as GPUs, or 1)."""
    checkpoint_steps: int = 500
    """Steps between checkpoints; there is one at the end in any case."""

    def check(self) -> None:
        for name in ("epochs", "batch_size", "lr", "gamma", "checkpoint_steps"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        for name in ("weight_decay", "queue", "same_place_km"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be below 0")
        if self.workers is not None and (self.workers < 1 or self.batch_size % self.workers):
            raise UsageError(f"--workers {self.workers}: must be at least 1 and divide --batch-size {self.batch_size}")
