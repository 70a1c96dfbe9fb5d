"""Training geocells on Ray Train, from the vectors and places of an index of photos.

OUTPUT holds ``settings.json``, ``train/`` (Ray Train's checkpoints, while it lasts), ``progress.json`` (the curves so far), and at
the end an index folder whose rows are cells (geoloc.geocells.folder), and ``report.html``.
"""

import functools
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoloc.errors import UsageError
from geoloc.geocells.methods import GeocellOptions
from geoloc.index.store import open_index, publish, read_info
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.lease import leased
from geoloc.storage import Folder
from geoloc.training.curve import geocells_page
from geoloc.training.fitting import PROGRESS, TRAIN, Diary, fit, in_all_workers, resumed, settle, team, watched
from geoloc.training.job_options import GeocellJobOptions
from geoloc.training.options import GeocellTrainingOptions

if TYPE_CHECKING:
    from geoloc.training.cell_steps import CellExamples, CellTrainee

log = logging.getLogger("geoloc")

NOT_SETTLED = ("workers", "checkpoint_steps")
"""Settings that another attempt at the same training may change."""


def train_geocells(options: GeocellJobOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    cells = options.cells.options()
    cells.check()
    options.training.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with leased(folder, options.cluster.wait_minutes) as folder:
        return _run(options, cells, folder)


def _run(options: GeocellJobOptions, cells: GeocellOptions, folder: Folder) -> int:
    if folder.exists("index.json"):
        log.info("The geocells are trained: %s. To train them anew, use another folder", folder.uri)
        return 0
    source, training = Folder(options.source, options.s3), options.training
    info = read_info(source)
    if info.kind != "photos":
        raise UsageError(f"SOURCE {options.source}: is an index of {info.kind}; make one of photos with build_index.py")
    connect()
    check_seen(folder, {"SOURCE": source.uri})
    settings = {name: value for name, value in asdict(training).items() if name not in NOT_SETTLED}
    settle(folder, {"index": info.fingerprint} | asdict(cells) | settings)
    workers = team(training.workers, options.cluster).together()  # a batch is shared out evenly
    if training.batch_size % workers.workers:
        raise UsageError(
            f"--batch-size {training.batch_size}: must be divisible by the {workers.workers} workers (--workers)"
        )
    examples = _examples(source, cells)
    learned, held_out = examples.split(training)
    if len(learned) < training.batch_size:
        raise UsageError(
            f"--batch-size {training.batch_size}: SOURCE {options.source} has only {len(learned):,} photos beside the "
            f"{len(held_out):,} that are held out (--validation-share)"
        )
    for level, partition in enumerate(examples.division.partitions):
        share = np.mean(examples.cells[:, level] >= 0)
        log.info(
            "Cells of %s photos at most: %s, with %.1f %% of the photos", cells.most[level], len(partition), 100 * share
        )
    steps = training.epochs * (len(learned) // training.batch_size)
    log.info(
        "Training: %s photos, %s held out, %s places, %s steps of %s at most, %s",
        f"{len(learned):,}",
        f"{len(held_out):,}",
        f"{len(examples.division.lat):,}",
        f"{steps:,}",
        training.batch_size,
        workers.describe(),
    )
    worker = functools.partial(train_worker, training, cells, source, folder)
    with watched(folder, steps, lambda point: f"loss {point['loss']:.3f}"):
        result = fit(worker, folder, workers, options.cluster.stall_minutes)
    _publish(options, cells, examples, folder, result)
    return 0


def _examples(source: Folder, cells: GeocellOptions) -> "CellExamples":
    from geoloc.geocells.division import Division  # needs torch (geoloc.recipes.stage)
    from geoloc.training.cell_steps import CellExamples

    index = open_index(source)
    division = Division.of(index.lat, index.lon, cells)
    return CellExamples(index.vectors, index.lat, index.lon, division.cells(index.lat, index.lon), division)


def train_worker(training: GeocellTrainingOptions, cells: GeocellOptions, source: Folder, run: Folder) -> None:
    """What every worker runs: its share of every batch, against the whole batch's cells."""
    import ray.train
    import ray.train.torch
    import torch

    from geoloc.geocells.model import Geocells
    from geoloc.training.cell_steps import CellTrainee

    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    with in_all_workers():
        examples = _examples(source, cells)
        torch.manual_seed(training.seed)
        sizes = [len(partition) for partition in examples.division.partitions]
        model = Geocells(examples.vectors.shape[1], sizes, cells.head, cells.width)
        trainee = CellTrainee(model, cells, training, examples, ray.train.torch.get_device(), rank, world)
        first = resumed(trainee.load)
    diary = Diary(run, first, trainee.steps)
    for step in range(first, trainee.steps):
        with in_all_workers():
            trainee.step(step)
        done = step + 1
        last = trainee.finished or done == trainee.steps
        if rank == 0 and trainee.history:
            diary.write(
                trainee.steps if last else done, {"history": trainee.history, "validations": trainee.validations}
            )
        if last or done % training.checkpoint_steps == 0:
            _report(trainee, done, rank)
        if last:
            break


def _report(trainee: "CellTrainee", done: int, rank: int) -> None:
    """All workers meet here; the first leaves a checkpoint. They hold the same weights."""
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        if rank == 0:
            trainee.save(Path(folder), done)
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank == 0 else None
        ray.train.report({"step": done}, checkpoint)


def _publish(
    options: GeocellJobOptions, cells: GeocellOptions, examples: "CellExamples", folder: Folder, result
) -> None:
    import safetensors.torch

    from geoloc.geocells.folder import write_geocells
    from geoloc.training.cell_steps import BEST

    with result.checkpoint.as_directory() as checkpoint:
        weights = safetensors.torch.load_file(Path(checkpoint) / BEST)
    curves = json.loads(folder.read(PROGRESS))
    best = min(curves["validations"], key=lambda point: point["loss"])
    facts = {"method": options.cells.method, "training": asdict(options.training), "best": best}
    index = open_index(Folder(options.source, options.s3))
    settings = (
        facts
        | asdict(cells)
        | {"output": folder.uri, "photos": len(examples.lat), "places": len(examples.division.lat)}
    )
    folder.write("report.html", geocells_page(curves["history"], curves["validations"], settings))
    publish(folder, lambda draft: write_geocells(draft, weights, cells, examples.division, index, facts))
    folder.filesystem.rm(folder.path(TRAIN), recursive=True)
    log.info(
        "Held-out photos, after epoch %s: %.1f %% in the right place, %.1f / %.1f / %.1f %% within 25 / 200 / 750 km",
        best["epoch"],
        *(100 * best[name] for name in ("place", "within_25_km", "within_200_km", "within_750_km")),
    )
    log.info("Geocells: %s; use them with --recipe %s --index %s", folder.uri, options.cells.method, folder.uri)
