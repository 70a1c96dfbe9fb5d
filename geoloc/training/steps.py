"""A worker's part of training an alignment: forward, loss over all workers' photos, backward, and its state on disk."""

import json
import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from geoloc.encoders.alignment import WEIGHTS, Alignment, Losses, alignment_loss, same_place
from geoloc.errors import UsageError
from geoloc.storage import describe
from geoloc.training.examples import Examples, Order
from geoloc.training.moments import load_moments, save_moments
from geoloc.training.options import TrainingOptions

PROGRESS = "progress.json"
CURVE_POINTS = 500
_SHOWN_IDS = 10


class Trainee:
    def __init__(
        self,
        alignment: Alignment,
        options: TrainingOptions,
        examples: Examples,
        texts: torch.Tensor,
        order: Order,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.alignment = alignment.to(device)
        self._model = DistributedDataParallel(self.alignment) if world > 1 else self.alignment
        self._options, self._examples, self._order = options, examples, order
        self._texts, self._device = texts.to(device), device
        self._rank, self._world = rank, world
        self._named = [(name, p) for name, p in self.alignment.named_parameters() if p.requires_grad]
        parameters = [parameter for _, parameter in self._named]
        self._optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=options.weight_decay)
        self.history: list[dict] = []
        """The loss curve: CURVE_POINTS in all, each the mean of the steps since the last."""
        self._every = max(1, options.epochs * order.steps_an_epoch // CURVE_POINTS)
        self._sums: list[tuple[float, float]] = []

    def step(self, step: int) -> None:
        """Learn from one batch. Raises UsageError where the loss is no number, and learns nothing then."""
        rows = self._order.rows(step)
        losses = self._losses(step, rows)
        values = losses.text.item(), losses.location.item()
        if not all(math.isfinite(value) for value in values):
            ids = self._examples.ids[rows]
            raise UsageError(
                f"the loss is {values[0]} (text) + {values[1]} (location) at step {step + 1}: lower --lr, or look at the "
                f"photos of that batch, whose ids in manifest/ are {', '.join(map(str, ids[:_SHOWN_IDS]))} …"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.lr * self._options.gamma ** (step // self._order.steps_an_epoch)
        self._optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self._optimizer.step()
        self._note(step, values)

    @property
    def last(self) -> dict[str, float]:
        """The newest point of the loss curve."""
        return {name: self.history[-1][name] for name in ("text", "location")} if self.history else {}

    @property
    def similarity_scale(self) -> float:
        return self.alignment.location_scale.exp().item()

    def save(self, folder: Path, done: int) -> None:
        """All that ``load`` needs to go on as if nothing had happened."""
        safetensors.torch.save_file(self.alignment.state_dict(), folder / WEIGHTS)
        save_moments(folder, self._named, self._optimizer)
        progress = {"step": done, "history": self.history, "sums": self._sums}
        (folder / PROGRESS).write_text(json.dumps(progress))

    def load(self, folder: Path) -> int:
        """Returns the step to go on with. Raises UsageError for a checkpoint of another architecture."""
        try:
            self.alignment.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise UsageError(f"OUTPUT: its checkpoint is of another architecture ({describe(error)})") from error
        load_moments(folder, self._named, self._optimizer)
        progress = json.loads((folder / PROGRESS).read_text())
        self.history, self._sums = progress["history"], [tuple(sums) for sums in progress["sums"]]
        return progress["step"]

    def _losses(self, step: int, rows: np.ndarray) -> Losses:
        """Of the whole batch; this worker computes the vectors of its share."""
        share = len(rows) // self._world
        mine = rows[self._rank * share : (self._rank + 1) * share]
        features = torch.from_numpy(self._examples.features[mine]).to(self._device, non_blocking=True)
        sentence = torch.from_numpy(self._examples.sentence[mine]).to(self._device)
        vectors = self._model(features, self._texts[sentence.clamp(min=0)], self._coordinates(mine))
        vectors = tuple(_gather(part, self._rank, self._world) for part in vectors)
        has_text = torch.from_numpy(self._examples.sentence[rows] >= 0).to(self._device)
        kilometres, photos = self._options.same_place_km, self._options.queue
        masked = same_place(self._coordinates(rows), kilometres) if kilometres else None
        earlier = self._order.before(step, photos) if photos else []
        queue = self.alignment.locations(self._coordinates(earlier)) if len(earlier) else None
        return alignment_loss(self.alignment, vectors, has_text, masked, queue)

    def _coordinates(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._examples.coordinates[rows]).to(self._device)

    def _note(self, step: int, values: tuple[float, float]) -> None:
        self._sums.append(values)
        if (step + 1) % self._every == 0:
            text, location = np.mean(self._sums, axis=0).tolist()
            epoch = step // self._order.steps_an_epoch + 1
            self.history.append({"step": step + 1, "epoch": epoch, "text": text, "location": location})
            self._sums.clear()


def _gather(mine: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """All workers' rows in the workers' order.

    Gradients flow into this worker's own rows alone, ``world`` times as large: averaged over the workers, as
    DistributedDataParallel does, they are those of the whole batch on one worker.
    """
    if world == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(parts, mine.detach().contiguous())
    parts[rank] = mine.detach() + world * (mine - mine.detach())
    return torch.cat(parts)
