"""The steps of training geocells without Ray: one process against two, and going on against never having stopped."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from geoloc.errors import UsageError
from geoloc.geocells.division import Division
from geoloc.geocells.methods import METHODS, GeocellOptions
from geoloc.geocells.model import Geocells
from geoloc.training.cell_steps import CellExamples, CellTrainee
from geoloc.training.options import GeocellTrainingOptions

SMALL = {"most": (60, 30, 15), "fewest": 4}
VARIANTS = [
    dataclasses.replace(METHODS["geosurge"], **SMALL),
    dataclasses.replace(METHODS["geosurge"], **SMALL, negatives="batch"),
    dataclasses.replace(METHODS["geosurge"], **SMALL, negatives="all-cells", smoothing_km=200.0),
    dataclasses.replace(METHODS["cplanet"], **SMALL),
    dataclasses.replace(METHODS["pigeon"], most=(15,), fewest=4),
]
TRAINING = GeocellTrainingOptions(epochs=3, batch_size=64, lr=1e-2, validation_share=0.1)


def examples(options: GeocellOptions) -> CellExamples:
    """Of photos whose vectors tell what town they are of."""
    random = np.random.default_rng(0)
    town = random.integers(0, 12, 400)
    lat, lon = np.stack([random.uniform(-60, 60, 12), random.uniform(-180, 180, 12)])[:, town]
    lat, lon = lat + random.normal(0, 0.2, 400), lon + random.normal(0, 0.2, 400)
    vectors = random.normal(size=(12, 16))[town] + random.normal(0, 0.4, (400, 16))
    division = Division.of(lat, lon, options)
    return CellExamples(vectors.astype(np.float32), lat, lon, division.cells(lat, lon), division)


def trainee(options: GeocellOptions, rank: int = 0, world: int = 1, **training) -> CellTrainee:
    """In double precision, where rounding does not show."""
    torch.manual_seed(0)
    known = examples(options)
    known = dataclasses.replace(known, vectors=known.vectors.astype(np.float64))
    model = Geocells(16, [len(cells) for cells in known.division.partitions], options.head, width=8).double()
    settings = dataclasses.replace(TRAINING, **training)
    return CellTrainee(model, options, settings, known, torch.device("cpu"), rank, world)


def run(one: CellTrainee, first: int = 0, last: int | None = None) -> list[float]:
    for step in range(first, one.steps if last is None else last):
        one.step(step)
    return [point["loss"] for point in one.history] + [point["loss"] for point in one.validations]


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    for number, options in enumerate(VARIANTS):
        curve = run(trainee(options, rank, world))
        if rank == 0:
            np.save(f"{folder}/{number}.npy", curve)


def test_two_workers_learn_what_one_does(tmp_path):
    mp.spawn(worker, (2, str(tmp_path)), nprocs=2)
    for number, options in enumerate(VARIANTS):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), run(trainee(options)), rtol=1e-9)


@pytest.mark.parametrize("options", VARIANTS)
def test_places_are_learned(options):
    one = trainee(options, epochs=12, gamma=0.95)
    run(one)
    first, last = one.validations[0], one.validations[-1]
    assert last["loss"] < first["loss"]
    assert last["within_200_km"] > 0.8


def test_going_on_is_never_having_stopped(tmp_path):
    whole = trainee(VARIANTS[0])
    expected = run(whole)
    for stop in (3, 5, 8):  # within an epoch, at its end, in the next
        before = trainee(VARIANTS[0])
        run(before, 0, stop)
        before.save(tmp_path, stop)
        after = trainee(VARIANTS[0])
        assert after.load(tmp_path) == stop
        assert run(after, stop) == pytest.approx(expected, rel=1e-12)
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, after.model.state_dict()[name])


def test_it_stops_where_epochs_bring_nothing_and_keeps_the_best(tmp_path):
    """A learning rate that ruins what the first epoch has learned."""
    one = trainee(VARIANTS[0], epochs=9, patience=2, lr=1e-2, gamma=30.0)
    step = 0
    while not one.finished:
        one.step(step)
        step += 1
    assert step < one.steps
    losses = [point["loss"] for point in one.validations]
    assert len(losses) == 1 + losses.index(min(losses)) + 2
    one.save(tmp_path, step)
    best = trainee(VARIANTS[0], epochs=1 + losses.index(min(losses)), lr=1e-2, gamma=30.0)
    run(best)
    again = trainee(VARIANTS[0])
    again.load(tmp_path)
    for name, value in best.model.state_dict().items():
        assert torch.equal(value, again.best[name])


def test_a_loss_that_is_no_number_names_the_photos():
    one = trainee(VARIANTS[0])
    one._examples.vectors[:] = np.nan
    with pytest.raises(UsageError, match=r"the loss is nan, nan, nan .* at step 1: lower --lr, .* rows \d+, "):
        one.step(0)


def test_a_checkpoint_of_other_cells(tmp_path):
    trainee(VARIANTS[0]).save(tmp_path, 1)
    with pytest.raises(UsageError, match="its checkpoint is of another architecture"):
        trainee(dataclasses.replace(VARIANTS[0], most=(60, 30, 12))).load(tmp_path)
