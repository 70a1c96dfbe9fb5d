"""Training G3's alignment on Ray: features through Ray Data once, then Ray Train from their cache.

OUTPUT holds ``manifest/`` and ``features/`` (Parquet parts, the ingest's checkpoint), ``train/`` (Ray Train's checkpoints,
while it lasts), ``progress.json`` (the loss so far), and at the end ``alignment.json``, ``alignment.safetensors`` and
``report.html``.
"""

import functools
import json
import logging
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from geoloc.encoders.config import ALIGNMENT, WEIGHTS, EncoderConfig, image_model
from geoloc.errors import UsageError
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.lease import leased
from geoloc.pipeline.models import probe_encoder
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.recipes.stage import Answer, Stage
from geoloc.results.parts import Parts
from geoloc.schema import REFERENCE
from geoloc.storage import Folder
from geoloc.training.curve import loss_page
from geoloc.training.fitting import PROGRESS, TRAIN, Diary, fit, in_all_workers, resumed, team, watched
from geoloc.training.job_options import AlignmentOptions
from geoloc.training.options import TrainingOptions

if TYPE_CHECKING:
    from geoloc.training.steps import Trainee

log = logging.getLogger("geoloc")


def train_alignment(options: AlignmentOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.training.check()
    options.photos.check()
    options.listing.check()
    models = image_model(options.encoder, options.model)
    if models.alignment is not None:
        raise UsageError(f"--encoder {options.encoder}: is trained already; start from geoclip or lite")
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with leased(folder, options.cluster.wait_minutes) as folder:
        if options.from_checkpoint:
            return _take_over(options, models, folder)
        return _run(options, models, Run(folder, "features", REFERENCE))


def _take_over(options: AlignmentOptions, models: EncoderConfig, folder: Folder) -> int:
    """What the authors of G3 have trained."""
    import safetensors.torch  # needs torch (geoloc.recipes.stage)

    from geoloc.encoders.g3 import read_checkpoint
    from geoloc.encoders.image import load_model

    if folder.exists(ALIGNMENT):
        raise UsageError(f"OUTPUT {folder.uri}: holds an alignment; use another folder")
    alignment = read_checkpoint(Path(options.source).expanduser(), load_model(models))
    folder.write(WEIGHTS, safetensors.torch.save(alignment.state_dict()))
    card = {
        "encoder": models.name,
        "model": models.tower,
        "image_dimension": alignment.image_to_text[0].in_features,
        "text_dimension": alignment.text[0].in_features,
        "training": {"projection": "mercator", "checkpoint": Path(options.source).name},
        "similarity_scale": alignment.location_scale.exp().item(),
    }
    folder.write(ALIGNMENT, json.dumps(card, indent=1).encode())
    log.info("Alignment: %s; use it with --encoder %s", folder.uri, folder.uri)
    return 0


def _run(options: AlignmentOptions, models: EncoderConfig, run: Run) -> int:
    connect()
    source = Source(options.source, options.s3, options.listing)
    placement = Placement(options.cluster, [Stage("encoder", functools.partial(_build_featurer, models), gpu_calls=2)])
    check_seen(run.folder, {"SOURCE": source.place, "--features": options.features})
    encoder = probe_encoder(models)
    run.settle(
        {
            "source": Folder(options.source).uri,
            "encoder": models.name,
            "model": models.model,
            "weights": encoder.weights["encoder"],
        }
        | {
            name: value
            for name, value in asdict(options.training).items()
            if name not in ("workers", "checkpoint_steps")
        }
    )
    if run.folder.exists(ALIGNMENT):
        log.info("The alignment is trained: %s. To train it anew, use another folder", run.folder.uri)
        return 0
    features = run if options.features is None else Run(Folder(options.features, options.s3), "features", REFERENCE)
    if features is run:
        run.take_up(source, options.photos.retry_kinds())
        stream = Stream(
            run,
            load=options.photos.load_options(encoder.view, options.s3, need_position=True),
            placement=placement,
            max_failing_share=options.photos.max_failing_share,
            max_part_rows=4_096,
        )
        for line in stream.work().lines():
            log.info("%s", line)
    else:
        _check_features(features, run)
    if missing := features.reconcile():
        log.error("%s photos were not read; run the same command again to go on", f"{missing:,}")
        return 1
    statuses = Counter()
    for table in features.parts.tables(["status", "error_kind"]):
        statuses.update(pc.coalesce(table["error_kind"], table["status"]).to_pylist())
    log.info("Features: %s", ", ".join(f"{kind} {count:,}" for kind, count in statuses.most_common()))
    photos = statuses["indexed"]
    if photos < options.training.batch_size:
        raise UsageError(
            f"--batch-size {options.training.batch_size}: SOURCE {options.source} has only {photos:,} photos that can be used"
        )
    _fit(options, models, run.folder, features.parts, photos)
    return 0


def _build_featurer(models: EncoderConfig, device: str, threads: int) -> Answer:
    from geoloc.index.reference import Featurer

    return Featurer(models, device, threads).refer


def _check_features(features: Run, run: Run) -> None:
    theirs, ours = (one.record().get("settings", {}) for one in (features, run))
    for name in ("source", "weights"):
        if theirs.get(name) != ours[name]:
            raise UsageError(
                f"--features {features.folder.uri}: its {name} is {theirs.get(name)!r}, and this run's is {ours[name]!r}"
            )


def _fit(options: AlignmentOptions, models: EncoderConfig, folder: Folder, parts: Parts, photos: int) -> None:
    training = options.training
    workers = team(training.workers, options.cluster).together()  # a batch is shared out evenly
    if training.batch_size % workers.workers:
        raise UsageError(
            f"--batch-size {training.batch_size}: must be divisible by the {workers.workers} workers (--workers)"
        )
    steps = training.epochs * (photos // training.batch_size)
    log.info(
        "Training: %s photos, %s steps of %s, %s",
        f"{photos:,}",
        f"{steps:,}",
        training.batch_size,
        workers.describe(),
    )
    worker = functools.partial(train_worker, training, models, folder, parts)
    with watched(folder, steps, lambda point: f"text {point['text']:.3f}, location {point['location']:.3f}"):
        result = fit(worker, folder, workers, options.cluster.stall_minutes)
    with result.checkpoint.as_directory() as checkpoint:
        folder.write(WEIGHTS, (Path(checkpoint) / WEIGHTS).read_bytes())
        card = json.loads((Path(checkpoint) / "card.json").read_bytes())
    history = json.loads(folder.read(PROGRESS))["history"]
    folder.write("report.html", loss_page(history, card | {"photos": photos, "output": folder.uri}))
    folder.write(ALIGNMENT, json.dumps(card, indent=1).encode())
    folder.filesystem.rm(folder.path(TRAIN), recursive=True)
    log.info("Alignment: %s; use it with --encoder %s", folder.uri, folder.uri)


def train_worker(options: TrainingOptions, models: EncoderConfig, run: Folder, parts: Parts) -> None:
    """What every worker runs: its share of every batch, against the whole batch."""
    import ray.train
    import ray.train.torch
    import torch

    from geoloc.encoders.alignment import Alignment
    from geoloc.encoders.text import text_encoder
    from geoloc.training.examples import Examples, Order
    from geoloc.training.steps import Trainee

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    examples = Examples.open(parts)
    order = Order(len(examples), options.batch_size, options.seed)
    texts = text_encoder(models, str(device)).encode(examples.sentences or ["nowhere"])
    torch.manual_seed(options.seed)
    alignment = Alignment(examples.features.shape[1], texts.shape[1], options.projection)
    trainee = Trainee(alignment, options, examples, torch.from_numpy(texts), order, device, rank, world)
    with in_all_workers():
        first = resumed(trainee.load)
    steps = options.epochs * order.steps_an_epoch
    card = {
        "encoder": models.name,
        "model": models.tower,
        "image_dimension": examples.features.shape[1],
        "text_dimension": texts.shape[1],
        "training": asdict(options),
    }
    diary = Diary(run, first, steps)
    for step in range(first, steps):
        with in_all_workers():
            trainee.step(step)
        done = step + 1
        if rank == 0 and trainee.history:
            diary.write(done, {"history": trainee.history})
        if done % options.checkpoint_steps == 0 or done == steps:
            _report(trainee, done, card if rank == 0 else None)


def _report(trainee: "Trainee", done: int, card: dict | None) -> None:
    """All workers meet here; the first leaves a checkpoint. They hold the same weights."""
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        if card is not None:
            trainee.save(Path(folder), done)
            finished = card | {"steps": done, "similarity_scale": trainee.similarity_scale}
            (Path(folder) / "card.json").write_text(json.dumps(finished))
        checkpoint = ray.train.Checkpoint.from_directory(folder) if card is not None else None
        ray.train.report({"step": done} | trainee.last, checkpoint)
