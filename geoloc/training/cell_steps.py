"""A worker's part of training geocells: forward, loss over all workers' photos, backward, validation, and its state on disk."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from geoloc.errors import UsageError
from geoloc.geo.distance import EARTH_RADIUS_KM, haversine_km, unit_vectors
from geoloc.geocells.division import Division
from geoloc.geocells.inference import posterior
from geoloc.geocells.losses import NOWHERE, among_all, among_batch, smoothed
from geoloc.geocells.methods import GeocellOptions
from geoloc.geocells.model import Geocells
from geoloc.storage import describe
from geoloc.training.examples import Order
from geoloc.training.moments import load_moments, save_moments
from geoloc.training.options import GeocellTrainingOptions

WEIGHTS, BEST, PROGRESS = "geocells.safetensors", "best.safetensors", "progress.json"
WITHIN_KM = (25, 200, 750)
"""Of the truth, in which held-out photos are counted."""
CURVE_POINTS = 500
_SHOWN_IDS = 10
_VALIDATED_AT_ONCE = 256


@dataclass(frozen=True)
class CellExamples:
    vectors: np.ndarray
    """(n, d) float32, memory-mapped."""
    lat: np.ndarray
    lon: np.ndarray
    cells: np.ndarray
    """(n, levels) int64: each photo's cell in every partition, or NOWHERE."""
    division: Division

    def split(self, options: GeocellTrainingOptions) -> tuple[np.ndarray, np.ndarray]:
        """Rows to learn from, and held-out rows, which have a place, at least one."""
        order = np.random.default_rng(options.seed).permutation(len(self.lat))
        count = max(1, round(options.validation_share * len(order)))
        held_out = order[self.division.place[order] >= 0][:count]
        return order[~np.isin(order, held_out)], held_out


class _Loss(nn.Module):
    """The sum of the partitions' losses of one worker's photos, so scaled that the mean over workers is the whole batch's."""

    def __init__(self, model: Geocells, options: GeocellOptions, division: Division, world: int) -> None:
        super().__init__()
        self.model, self._options, self._division, self._world = model, options, division, world

    def forward(self, vectors: torch.Tensor, batch: torch.Tensor, mine: torch.Tensor, km: list) -> torch.Tensor:
        """``batch`` (b, levels) are the cells of all workers' photos, ``mine`` (n,) the places of this worker's among them, ``km``
        its photos' distances to the cells of each partition, for smoothing."""
        photos = self.model(vectors)
        losses = []
        for level, cells in enumerate(batch.T):
            if self._options.head == "embeddings" and self._options.negatives != "all-cells":
                logits = self.model.logits(photos, level, cells.clamp(min=0))
                loss = among_batch(logits, mine, cells, self._options.negatives == "batch-masked")
            elif self._options.smoothing_km:
                logits = self.model.logits(photos, level)
                loss = smoothed(logits, km[level], cells[mine], self._options.smoothing_km)
            else:
                loss = among_all(self.model.logits(photos, level), cells[mine])
            losses.append(loss.sum() * self._world / (cells != NOWHERE).sum().clamp(min=1))
        return torch.stack(losses)


class CellTrainee:
    def __init__(
        self,
        model: Geocells,
        cell_options: GeocellOptions,
        options: GeocellTrainingOptions,
        examples: CellExamples,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.model = model.to(device)
        self._loss = _Loss(self.model, cell_options, examples.division, world)
        if world > 1:
            self._loss = DistributedDataParallel(self._loss)
        self._cells, self._options, self._examples = cell_options, options, examples
        self._learned, self._held_out = examples.split(options)
        self._order = Order(len(self._learned), options.batch_size, options.seed)
        self._lineage = torch.from_numpy(examples.division.lineage).to(device)
        self._device, self._rank, self._world = device, rank, world
        middles = (unit_vectors(cells.lat, cells.lon) for cells in examples.division.partitions)
        self._middles = [torch.from_numpy(points).to(device, torch.float32) for points in middles]
        self._named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            [parameter for _, parameter in self._named], lr=options.lr, weight_decay=options.weight_decay
        )
        self.history: list[dict] = []
        """The loss curve: CURVE_POINTS in all, each the mean of the steps since the last."""
        self.validations: list[dict] = []
        """Of the held-out photos, after every epoch."""
        self.best: dict[str, torch.Tensor] = {}
        """The model's state after the epoch of the lowest loss on held-out photos."""
        self._every = max(1, self.steps // CURVE_POINTS)
        self._sums: list[list[float]] = []

    @property
    def steps(self) -> int:
        return self._options.epochs * self._order.steps_an_epoch

    @property
    def finished(self) -> bool:
        """Whether the last epochs brought nothing."""
        losses = [point["loss"] for point in self.validations]
        return len(losses) - 1 - int(np.argmin(losses)) >= self._options.patience if losses else False

    def step(self, step: int) -> None:
        """Learn from one batch, and look at the held-out photos where an epoch ends with it. Raises UsageError where the loss is no
        number, and learns nothing then."""
        rows = self._learned[self._order.rows(step)]
        share = len(rows) // self._world
        mine = np.arange(self._rank * share, (self._rank + 1) * share)
        vectors = torch.from_numpy(self._examples.vectors[rows[mine]]).to(self._device, non_blocking=True)
        batch = torch.from_numpy(self._examples.cells[rows]).to(self._device)
        km = self._distances(rows[mine]) if self._cells.smoothing_km else []
        losses = self._loss(vectors, batch, torch.from_numpy(mine).to(self._device), km)
        values = self._mean(losses.detach()).tolist()
        if not all(math.isfinite(value) for value in values):
            raise UsageError(
                f"the loss is {', '.join(f'{value:g}' for value in values)} (coarsest partition first) at step {step + 1}: lower "
                f"--lr, or look at the photos of that batch, the index's rows {', '.join(map(str, rows[:_SHOWN_IDS]))} …"
            )
        epoch = step // self._order.steps_an_epoch
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.lr * self._options.gamma**epoch
        self._optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self._optimizer.step()
        self._sums.append(values)
        if (step + 1) % self._every == 0:
            levels = np.mean(self._sums, axis=0).tolist()
            self.history.append({"step": step + 1, "epoch": epoch + 1, "loss": sum(levels), "levels": levels})
            self._sums.clear()
        if (step + 1) % self._order.steps_an_epoch == 0:
            self._validate(step + 1, epoch + 1)

    def save(self, folder: Path, done: int) -> None:
        """All that ``load`` needs to go on as if nothing had happened."""
        safetensors.torch.save_file(self.model.state_dict(), folder / WEIGHTS)
        safetensors.torch.save_file(self.best or self.model.state_dict(), folder / BEST)
        save_moments(folder, self._named, self._optimizer)
        progress = {"step": done, "history": self.history, "validations": self.validations, "sums": self._sums}
        (folder / PROGRESS).write_text(json.dumps(progress))

    def load(self, folder: Path) -> int:
        """Returns the step to go on with. Raises UsageError for a checkpoint of another architecture."""
        try:
            self.model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
        except RuntimeError as error:
            raise UsageError(f"OUTPUT: its checkpoint is of another architecture ({describe(error)})") from error
        load_moments(folder, self._named, self._optimizer)
        progress = json.loads((folder / PROGRESS).read_text())
        self.history, self.validations, self._sums = (progress[name] for name in ("history", "validations", "sums"))
        if self.validations:
            self.best = safetensors.torch.load_file(folder / BEST)
        return progress["step"]

    @torch.inference_mode()
    def _validate(self, done: int, epoch: int) -> None:
        """On this worker's share of the held-out photos."""
        division, sums = self._examples.division, np.zeros(2 + len(WITHIN_KM))
        mine = self._held_out[self._rank :: self._world]
        for at in range(0, len(mine), _VALIDATED_AT_ONCE):
            rows = mine[at : at + _VALIDATED_AT_ONCE]
            vectors = torch.from_numpy(self._examples.vectors[rows]).to(self._device)
            scores = posterior(self.model, self.model.photos(vectors), self._lineage, self._cells.combine)
            found, own = scores.argmax(dim=1).cpu().numpy(), division.place[rows]
            loss = -scores.gather(1, torch.from_numpy(own).to(self._device)[:, None]).sum().item()
            here = self._examples.lat[rows], self._examples.lon[rows]
            km = haversine_km(*here, division.lat[found], division.lon[found])
            sums += [loss, (found == own).sum(), *((km < limit).sum() for limit in WITHIN_KM)]
        loss, right, *within = (self._sum(torch.from_numpy(sums)) / len(self._held_out)).tolist()
        point = {"step": done, "epoch": epoch, "photos": len(self._held_out), "loss": loss, "place": right}
        self.validations.append(point | {f"within_{limit}_km": s for limit, s in zip(WITHIN_KM, within, strict=True)})
        if loss <= min(point["loss"] for point in self.validations):
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def _distances(self, rows: np.ndarray) -> list[torch.Tensor]:
        """Of photos to the cells of each partition, (n, cells) km."""
        photos = unit_vectors(self._examples.lat[rows], self._examples.lon[rows])
        photos = torch.from_numpy(photos).to(self._device, torch.float32)
        chords = (torch.cdist(photos, cells, compute_mode="donot_use_mm_for_euclid_dist") for cells in self._middles)
        return [2 * EARTH_RADIUS_KM * torch.asin((chord / 2).clamp(max=1)) for chord in chords]

    def _mean(self, value: torch.Tensor) -> torch.Tensor:
        return self._sum(value) / self._world

    def _sum(self, value: torch.Tensor) -> torch.Tensor:
        """Over all workers."""
        value = value.to(self._device)
        if self._world > 1:
            dist.all_reduce(value)
        return value
