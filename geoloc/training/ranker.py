"""Training GeoRanker on Ray: pictures decoded by Ray Data, the fine-tune on Ray Train and DeepSpeed.

OUTPUT holds ``settings.json``, ``train/`` (Ray Train's checkpoints, while it lasts), ``progress.json`` (the curves so far),
and at the end a PEFT adapter with ``ranker.json``, which says how it is asked, and ``report.html``.
"""

import functools
import itertools
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.errors import UsageError
from geoloc.photos.views import AreaView
from geoloc.pipeline.cluster import check_seen, connect, quiet_data
from geoloc.pipeline.georanking import PARTS
from geoloc.pipeline.lease import leased
from geoloc.pipeline.models import probe_ranker
from geoloc.pipeline.plan import LOADER_CPUS
from geoloc.pipeline.run import SUCCESS
from geoloc.ranking.options import ADAPTER_FILES, PROMPT, PromptOptions, RankerOptions, write_prompt
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.training.curve import ranker_page
from geoloc.training.fitting import PROGRESS, TRAIN, Diary, fit, in_all_workers, resumed, settle, team, watched
from geoloc.training.job_options import RankerJobOptions
from geoloc.training.options import RankerTrainingOptions

if TYPE_CHECKING:
    from geoloc.training.questions import Question
    from geoloc.training.ranker_steps import RankerTrainee

log = logging.getLogger("geoloc")

NOT_SETTLED = ("workers", "checkpoint_steps", "checkpointing", "zero", "offload")
"""Settings that another attempt at the same training may change."""
DECODED_AT_ONCE, MAX_TASKS = 4, 4_096
"""Photos, with their candidates, that are decoded together; and tasks of an epoch."""


def train_ranker(options: RankerJobOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.training.check()
    options.prompt.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with leased(folder, options.cluster.wait_minutes) as folder:
        return _run(options, folder)


def _run(options: RankerJobOptions, folder: Folder) -> int:
    if folder.exists(PROMPT):
        log.info("The ranker is trained: %s. To train it anew, use another folder", folder.uri)
        return 0
    parts, photos = _set(options.source, "SOURCE", options)
    validation, held_out = _set(options.validation, "--validation", options) if options.validation else (None, 0)
    training = options.training
    left = photos if validation else photos - min(training.validation_photos, photos)
    if left < training.photos_a_step:
        raise UsageError(
            f"--photos-a-step {training.photos_a_step}: SOURCE {options.source} has only {photos:,} photos"
            + ("" if validation else f", {photos - left:,} of them for --validation-photos")
        )
    connect()
    workers = team(training.workers, options.cluster)
    check_seen(folder, {"SOURCE": parts.folder.uri, "--validation": validation and validation.folder.uri})
    if (useful := training.useful(workers.workers)) < workers.workers:
        log.info(
            "%s of %s workers are used: the %s photos of a step (--photos-a-step) are %s each for them, and would be no sooner "
            "done by more",
            useful,
            workers.workers,
            training.photos_a_step,
            training.share(workers.workers),
        )
        workers = workers.of(useful)
    facts = probe_ranker(RankerOptions(options.model, None, options.prompt))
    _settle(folder, options, facts.fingerprint)
    steps = training.epochs * (left // training.photos_a_step)
    log.info(
        "Training: %s photos, %s held out, %s steps of %s, %s",
        f"{left:,}",
        f"{min(training.validation_photos, held_out if validation else photos):,}",
        f"{steps:,}",
        training.photos_a_step,
        workers.describe(),
    )
    worker = functools.partial(train_worker, options, folder, TrainingSet(parts, validation, facts.view))
    with watched(folder, steps, lambda p: f"loss {p['loss']:.3f}, nearest first {100 * p['nearest_first']:.0f} %"):
        result = fit(worker, folder, workers, options.cluster.stall_minutes)
    _publish(options, folder, result, {"photos": left, "steps": steps, "model": options.model, "output": folder.uri})
    return 0


def _set(uri: str, option: str, options: RankerJobOptions) -> tuple[Parts, int]:
    """A training set's parts, and how many photos of it are ready."""
    folder = Folder(uri, options.s3)
    if not folder.exists(SUCCESS):
        raise UsageError(f"{option} {uri}: is no finished training set; make one with jobs/build_georanking.py")
    parts = Parts(folder / PARTS)
    return parts, sum(pc.sum(pc.equal(table["status"], "ready")).as_py() or 0 for table in parts.tables(["status"]))


def _settle(folder: Folder, options: RankerJobOptions, model: str) -> None:
    training = {name: value for name, value in asdict(options.training).items() if name not in NOT_SETTLED}
    settings = {"source": Folder(options.source).uri, "validation": options.validation, "model": model}
    settle(folder, settings | asdict(options.prompt) | training)


def _publish(options: RankerJobOptions, folder: Folder, result, facts: dict) -> None:
    with result.checkpoint.as_directory() as checkpoint:
        for name in ADAPTER_FILES:
            folder.write(name, (Path(checkpoint) / name).read_bytes())
    curves = json.loads(folder.read(PROGRESS))
    settings = facts | {"training": asdict(options.training), "prompt": asdict(options.prompt)}
    folder.write("report.html", ranker_page(curves["history"], curves["validations"], settings))
    write_prompt(folder, options.prompt)
    folder.filesystem.rm(folder.path(TRAIN), recursive=True)
    if curves["validations"]:
        last = curves["validations"][-1]
        log.info(
            "Nearest candidate first: %.1f %% of %s held-out photos (retrieval %.1f %%, chance %.1f %%)",
            100 * last["nearest_first"],
            f"{last['photos']:,}",
            100 * last["nearest_first_retrieved"],
            100 * last["nearest_first_by_chance"],
        )
    log.info("Ranker: %s; use it with --ranker-model %s --ranker-adapter %s", folder.uri, options.model, folder.uri)


@dataclass(frozen=True)
class TrainingSet:
    parts: Parts
    """Of GEORANKING."""
    validation: Parts | None
    """None where photos of ``parts`` are held out instead."""
    view: AreaView
    """What the ranker looks at of a picture."""

    def split(self, options: RankerTrainingOptions) -> tuple[np.ndarray, np.ndarray]:
        """Rows of ``parts`` to learn from, in an order that the seed alone decides, and rows to be tried on: of ``validation``, or
        held out from ``parts``."""
        from geoloc.training.questions import Questions

        rows = np.random.default_rng(options.seed).permutation(len(Questions.open(self.parts)))
        held_out = options.validation_photos
        if self.validation:
            return rows, np.arange(len(Questions.open(self.validation)))[:held_out]
        return rows[held_out:], rows[:held_out]


def train_worker(options: RankerJobOptions, run: Folder, photos: TrainingSet) -> None:
    """What every worker runs: its share of every step's photos."""
    import ray.train
    import ray.train.torch

    device = ray.train.torch.get_device()
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # before anything imports deepspeed
    from geoloc.training.examples import Order
    from geoloc.training.ranker_steps import RankerTrainee

    training, context = options.training, ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    learned, tried = photos.split(training)
    order = Order(len(learned), training.photos_a_step, training.seed)
    steps, share = training.epochs * order.steps_an_epoch, training.share(world)
    with in_all_workers():
        trainee = RankerTrainee(options.model, training, options.prompt, steps, device, rank, world)
        first = resumed(trainee.load)

    mine = [learned[order.rows(step)[rank * share : (rank + 1) * share]] for step in range(first, steps)]
    questions = decoded(photos.parts, np.concatenate([np.zeros(0, np.int64), *mine]), photos.view, options.prompt)
    diary = Diary(run, first, steps)
    for step in range(first, steps):
        with in_all_workers():
            trainee.step(step, itertools.islice(questions, min(share, max(0, training.photos_a_step - rank * share))))
        done = step + 1
        whole = done % training.checkpoint_steps == 0 or done == steps
        if whole and len(tried):
            trainee.validate(
                done, decoded(photos.validation or photos.parts, tried[rank::world], photos.view, options.prompt)
            )
        if rank == 0 and (trainee.history or whole):
            diary.write(done, {"history": trainee.history, "validations": trainee.validations})
        if whole:
            _report(trainee, done, rank)


def _report(trainee: "RankerTrainee", done: int, rank: int) -> None:
    """All workers meet here; the first leaves a checkpoint."""
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        trainee.save(Path(folder), done)
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
        ray.train.report({"step": done}, checkpoint)


def decoded(parts: Parts, rows: np.ndarray, view: AreaView, prompt: PromptOptions) -> Iterator["Question | None"]:
    """The questions of these rows in their order, decoded ahead by Ray Data wherever there are CPUs."""
    import ray.data

    from geoloc.training.questions import Question

    if not len(rows):
        return
    quiet_data().execution_options.preserve_order = True
    tasks = [{"rows": rows[at : at + DECODED_AT_ONCE].tolist()} for at in range(0, len(rows), DECODED_AT_ONCE)]
    dataset = ray.data.from_items(tasks, override_num_blocks=min(len(tasks), MAX_TASKS)).map_batches(
        functools.partial(_decode, parts, view, prompt.template),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=LOADER_CPUS,
    )
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        yield from (Question.of(row, prompt) for row in batch.to_pylist())


def _decode(parts: Parts, view: AreaView, template: str, tasks: pa.Table) -> Iterator[pa.Table]:
    from geoloc.training.questions import Questions

    for rows in tasks["rows"].to_pylist():
        yield Questions.open(parts).decoded(rows, view, template)
