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


@dataclass(frozen=True)
class GeocellTrainingOptions:
    """GeoSURGE's settings (§IV) are the defaults."""

    epochs: int = 20
    """Passes over the photos, at most."""
    batch_size: int = 1024
    """Photos a step, over all workers."""
    lr: float = 1e-4
    """Learning rate of AdamW in the first epoch."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    gamma: float = 0.5
    """The learning rate is multiplied by this after every epoch."""
    patience: int = 4
    """Epochs without a lower loss on held-out photos, after which training stops; the best weights are kept."""
    validation_share: float = 0.01
    """Of the photos, held out."""
    seed: int = 0
    """Of the shuffling, the held-out photos and the first weights."""
    workers: int | None = None
    """Training processes, a GPU each if there are GPUs (default: as many as GPUs, or 1)."""
    checkpoint_steps: int = 500
    """Steps between checkpoints; there is one at the end in any case."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("epochs", "batch_size", "lr", "gamma", "patience", "checkpoint_steps"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if self.weight_decay < 0:
            raise UsageError(f"--weight-decay {self.weight_decay}: must not be below 0")
        if not 0 < self.validation_share < 1:
            raise UsageError(f"--validation-share {self.validation_share}: must be above 0 and below 1")
        if self.workers is not None and (self.workers < 1 or self.batch_size % self.workers):
            raise UsageError(f"--workers {self.workers}: must be at least 1 and divide --batch-size {self.batch_size}")


@dataclass(frozen=True)
class RankerTrainingOptions:
    """GeoRanker's settings (paper and released code) are the defaults."""

    epochs: int = 1
    """Passes over the photos."""
    photos_a_step: int = 4
    """Over all workers; a photo's candidates stay together."""
    lr: float = 1e-4
    """Learning rate of AdamW at the first step; it falls linearly to 0."""
    weight_decay: float = 0.01
    """Of AdamW."""
    nearest: int = 1
    """How many candidates the loss puts in order, nearest first (0: all of them); the paper's K."""
    first_order_weight: float = 0.7
    """Weight of the order of distances in the loss; the rest is that of the differences between distances (1: the order
    alone, the paper's ablation)."""
    second_order: Literal["code", "paper"] = "code"
    """Which differences: as GeoRanker's released code takes them, or as its paper writes."""
    lora_rank: int = 16
    """Rank of LoRA on the language model's q, k and v."""
    lora_alpha: int = 32
    """LoRA's scale is alpha / rank."""
    lora_dropout: float = 0.05
    """Of LoRA's inputs."""
    zero: Literal[2, 3] = 2
    """DeepSpeed's ZeRO stage: 3 shares the model itself out over the workers too."""
    offload: bool = False
    """Keep the optimizer's state in the machine's memory."""
    checkpointing: bool = False
    """Compute activations twice instead of keeping them, to train in less memory."""
    validation_photos: int = 200
    """Photos that are ranked now and then and not learned from (0: none)."""
    max_bad_turns: int = 0
    """Photos whose loss is no number, which are passed over, with those that other workers have at the moment; at one more the
    training stops."""
    seed: int = 0
    """Of the shuffling, the dropout and the first weights."""
    workers: int | None = None
    """Training processes, a GPU each if there are GPUs (default: as many as GPUs, or 1)."""
    checkpoint_steps: int = 500
    """Steps between checkpoints and validations; there is one at the end in any case."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("epochs", "photos_a_step", "lr", "lora_rank", "lora_alpha", "checkpoint_steps"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        for name in ("weight_decay", "nearest", "validation_photos", "max_bad_turns"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be below 0")
        for name in ("first_order_weight", "lora_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be from 0 to 1")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: must be at least 1")

    def share(self, workers: int) -> int:
        """Photos of a step that each of so many workers takes at most, one after the other.

        >>> [RankerTrainingOptions(photos_a_step=4).share(workers) for workers in (1, 2, 3, 8)]
        [4, 2, 2, 1]
        """
        return -(-self.photos_a_step // workers)

    def useful(self, workers: int) -> int:
        """How many of so many workers a step's photos keep busy: more would not be done any sooner.

        >>> [RankerTrainingOptions(photos_a_step=4).useful(workers) for workers in (1, 2, 3, 8)]
        [1, 2, 2, 4]
        """
        return -(-self.photos_a_step // self.share(workers))


def deepspeed_config(options: RankerTrainingOptions, workers: int, device: str) -> dict:
    """GeoRanker's ``zero2.json``, with what there is ``auto`` filled in. The optimizer is torch's own, which needs no
    compiler where it runs; the learning rate is set at every step."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": options.share(workers),
        "gradient_clipping": 1.0,
        "bf16": {"enabled": device == "cuda"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": options.lr, "weight_decay": options.weight_decay, "torch_adam": True},
        },
        "zero_optimization": {
            "stage": options.zero,
            "offload_optimizer": {"device": "cpu" if options.offload else "none"},
            "overlap_comm": device == "cuda",
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 5e8,
            "allgather_bucket_size": 5e8,
        },
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
