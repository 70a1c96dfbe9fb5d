"""A worker's part of training a ranker: forward, loss, DeepSpeed's backward and step, and its state on disk."""

import itertools
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.distributed as dist

from geoloc.errors import PhotoError, UsageError
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.ranking.georanker import load_base, save_adapter, with_new_adapter
from geoloc.ranking.losses import first_order_loss, second_order_loss
from geoloc.ranking.options import PromptOptions
from geoloc.ranking.packing import Pack, Prompts
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.training.options import RankerTrainingOptions, deepspeed_config
from geoloc.training.questions import Question

STATE, PROGRESS = "optimizer.safetensors", "progress.json"
CURVE_POINTS = 100
_BLANK = Question(np.zeros((56, 56, 3), np.uint8), [PromptPlace(0.0, 0.0)], [None], [], np.zeros(1))
"""What a worker asks that has nothing to ask."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class RankerTrainee:
    def __init__(
        self,
        model: str,
        options: RankerTrainingOptions,
        prompt: PromptOptions,
        steps: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """One of ``world`` processes, which have joined a process group unless there is but one."""
        if device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"
        else:
            torch.cuda.set_device(device)
        import deepspeed  # not where no model is trained: it looks for compilers and devices

        if world == 1 and not dist.is_initialized():
            os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
            backend, meeting = "nccl" if device.type == "cuda" else "gloo", f"file://{tempfile.mkdtemp()}/store"
            dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled on the spot
        self._options, self._prompt, self._steps = options, prompt, steps
        self._device, self._rank, self._world = device, rank, world
        torch.manual_seed(options.seed)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        base = load_base(model, dtype, str(device), options.checkpointing)
        self._tuned = with_new_adapter(base, options.lora_rank, options.lora_alpha, options.lora_dropout)
        self._scorer = GeoRankerScorer(base, model, prompt, str(device), cache_bytes=0)
        self.view = self._scorer.view
        [self._blank] = self._scorer.encode_queries([_query(_BLANK)])
        _set_apart(base.model, "visual")
        self._named = [(name, p) for name, p in self._tuned.named_parameters() if p.requires_grad]
        self._parameters = [parameter for _, parameter in self._named]
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self._tuned,
            model_parameters=self._parameters,
            config=deepspeed_config(options, world, device.type),
        )
        self.history: list[dict] = []
        """The curve: CURVE_POINTS in all, each the mean of the steps since the last."""
        self.validations: list[dict] = []
        self.bad_turns = 0
        """That were passed over."""
        self._every = max(1, steps // CURVE_POINTS)
        self._sums: list[list[float]] = []

    def step(self, step: int, questions: Iterable[Question | None]) -> None:
        """Learn from this worker's photos, as many as its share or fewer.

        A turn in which some worker's loss is no number is passed over by all of them, ``max_bad_turns`` times in all. Raises
        UsageError at the next one, and learns nothing of the step then.
        """
        self._tuned.train()
        self._set_lr(self._options.lr * (1 - step / self._steps))
        share = self._options.share(self._world)
        # DeepSpeed takes the mean over all workers' turns, of which some may be empty; the step's is over its photos
        weight = share * self._world / self._options.photos_a_step
        turns = itertools.islice(itertools.chain(questions, itertools.repeat(None)), share)
        sums = torch.zeros(4, dtype=torch.float64)  # first order, second order, nearest first, photos
        for number, question in enumerate(turns):
            _seed(self._options.seed, step, self._rank * share + number)
            loss, noted = self._loss(question)
            if not self._all_finite(loss):
                self.bad_turns += 1
                if self.bad_turns > self._options.max_bad_turns:
                    raise UsageError(
                        f"the loss is no number at step {step + 1}: lower --lr, or pass over some such turns (--max-bad-turns "
                        f"{self._options.max_bad_turns})"
                    )
                loss, noted = self._loss(None)
            sums += noted
            self._engine.backward(weight * loss)
            if number < share - 1:
                self._engine.step()
        sums = sums.to(self._device)
        dist.all_reduce(sums)
        first, second, nearest, photos = sums.tolist()
        self._engine.step()
        self._note(step, [value / max(photos, 1) for value in (first, second, nearest)])

    def _all_finite(self, loss: torch.Tensor) -> bool:
        """Of all workers."""
        finite = loss.detach().isfinite().float()
        dist.all_reduce(finite, dist.ReduceOp.MIN)
        return bool(finite)

    def _loss(self, question: Question | None) -> tuple[torch.Tensor, torch.Tensor]:
        """With what is noted of it. A photo that cannot be asked about teaches nothing, but is a pass through the model as any other:
        ZeRO-3's workers share the model out, and pass through it together or not at all."""
        prompts = self._prompts(question)
        scores = self._engine(Pack.of([prompts or self._blank], self._device))[None]
        if prompts is None:
            return scores.sum() * 0, torch.zeros(4, dtype=torch.float64)
        km = torch.from_numpy(question.km).to(self._device)[None]
        k, weight = self._options.nearest or None, self._options.first_order_weight
        first = first_order_loss(scores, km, k)[0]
        second = second_order_loss(scores, km, k, self._options.second_order)[0]
        nearest = float(scores.argmax() == km.argmin())
        noted = torch.tensor([first.item(), second.item(), nearest, 1], dtype=torch.float64)
        return weight * first + (1 - weight) * second, noted

    @torch.no_grad()
    def _prompts(self, question: Question | None) -> Prompts | None:
        if question is None:
            return None
        [prompts] = self._scorer.encode_queries([_query(question)])
        return None if isinstance(prompts, PhotoError) else prompts

    @torch.no_grad()
    def validate(self, done: int, questions: Iterable[Question | None]) -> None:
        """Rank this worker's validation photos, and note how all workers' were ranked, beside retrieval's own order. Workers that have
        fewer than others pass through the model with them all the same."""
        self._tuned.eval()
        mine, questions = [], iter(questions)
        while self._any_has(more := list(itertools.islice(questions, 1))):
            question = more[0] if more else None
            prompts = self._prompts(question)
            scores = self._engine(Pack.of([prompts or self._blank], self._device)).cpu().numpy()
            if prompts and np.isfinite(scores).all():
                mine.append((question.km[np.argmax(scores)], question.km[0], question.km.min(), len(question.km)))
        everyones: list[list] = [[] for _ in range(self._world)]
        dist.all_gather_object(everyones, mine)
        if not (table := [row for one in everyones for row in one]):
            return
        ranked, retrieved, best, candidates = np.array(table).T
        self.validations.append(
            {
                "step": done,
                "photos": len(table),
                "nearest_first": float((ranked == best).mean()),
                "nearest_first_retrieved": float((retrieved == best).mean()),
                "nearest_first_by_chance": float((1 / candidates).mean()),
                "median_km": float(np.median(ranked)),
                "median_km_retrieved": float(np.median(retrieved)),
                "within_km": {t: float((ranked < t).mean()) for t in THRESHOLDS_KM},
                "within_km_retrieved": {t: float((retrieved < t).mean()) for t in THRESHOLDS_KM},
                "within_km_at_best": {t: float((best < t).mean()) for t in THRESHOLDS_KM},
            }
        )

    def _any_has(self, more: list) -> bool:
        """Of all workers."""
        found = torch.tensor(float(len(more)), device=self._device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def save(self, folder: Path, done: int) -> None:
        """All that ``load`` needs to go on as if nothing had happened. Every worker calls it, the first one writes."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        weights = {name: safe_get_full_fp32_param(parameter) for name, parameter in self._named}
        state = {f"{name}.weights": weight for name, weight in weights.items()}
        for moment in MOMENTS:
            state |= {f"{name}.{moment}": safe_get_full_optimizer_state(p, moment) for name, p in self._named}
        if self._rank:
            return
        save_adapter(self._tuned, folder, weights)
        safetensors.torch.save_file({name: value.cpu().contiguous() for name, value in state.items()}, folder / STATE)
        progress = {"step": done, "history": self.history, "validations": self.validations, "sums": self._sums}
        progress["bad_turns"] = self.bad_turns
        (folder / PROGRESS).write_text(json.dumps(progress))

    def load(self, folder: Path) -> int:
        """Returns the step to go on with. Raises UsageError for a checkpoint of another model or another LoRA."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        state = safetensors.torch.load_file(folder / STATE)
        if any(tuple(state.get(f"{name}.weights", torch.zeros(0)).shape) != _shape(p) for name, p in self._named):
            raise UsageError("OUTPUT: its checkpoint is of another --model or --lora-rank; use another folder")
        self._set_lr(0.0)
        for _ in range(self._options.share(self._world)):  # a step that changes nothing makes the state
            self._engine.backward(self._loss(None)[0])
            self._engine.step()
        with deepspeed.zero.GatheredParameters(self._parameters, modifier_rank=0), torch.no_grad():
            for name, parameter in self._named:
                parameter.copy_(state[f"{name}.weights"])
        for name, parameter in self._named:
            safe_set_full_fp32_param(parameter, state[f"{name}.weights"].to(self._device))
            for moment in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[f"{name}.{moment}"].to(self._device), moment)
        progress = json.loads((folder / PROGRESS).read_text())
        self.history, self.validations, self._sums = (progress[name] for name in ("history", "validations", "sums"))
        self.bad_turns = progress["bad_turns"]
        for kept in self._optimizer.optimizer.state.values():
            kept["step"] = torch.tensor(float(progress["step"]))
        return progress["step"]

    def _set_lr(self, lr: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def _note(self, step: int, values: list[float]) -> None:
        self._sums.append(values)
        if (step + 1) % self._every == 0:
            first, second, nearest = np.mean(self._sums, axis=0).tolist()
            weight = self._options.first_order_weight
            loss = weight * first + (1 - weight) * second
            point = {"step": step + 1, "loss": loss, "first": first, "second": second, "nearest_first": nearest}
            self.history.append(point)
            self._sums.clear()


def _set_apart(model: torch.nn.Module, name: str) -> None:
    """Keep a frozen part whole on every worker, unknown to DeepSpeed: ZeRO-3 would share it out, and gather it for each picture,
    of which workers have unequal numbers."""
    part = getattr(model, name)
    delattr(model, name)
    object.__setattr__(model, name, part.eval().requires_grad_(False))


def _query(question: Question) -> RankQuery:
    shown = zip(question.places, question.pictures, strict=True)
    return RankQuery(question.picture, [RankCandidate(place, image) for place, image in shown], question.negatives)


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """Of the whole, where ZeRO-3 has left a part."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _seed(*numbers: int) -> None:
    """The same dropout for a photo of a step, whichever worker has it."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
