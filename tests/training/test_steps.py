"""The training steps without Ray: one process against two, and going on against never having stopped."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from geoloc.encoders.alignment import Alignment
from geoloc.errors import UsageError
from geoloc.training.examples import Examples, Order
from geoloc.training.options import TrainingOptions
from geoloc.training.steps import Trainee

BATCH, STEPS = 16, 6


def examples() -> Examples:
    random = np.random.default_rng(0)
    n = 50
    coordinates = np.stack([random.uniform(-60, 60, n), random.uniform(-180, 180, n)], axis=1).astype(np.float32)
    sentence = random.integers(-1, 6, n)
    features = random.normal(size=(n, 12)).astype(np.float32)
    return Examples(np.arange(n) + 1000, features, coordinates, sentence, [f"in {i}" for i in range(6)])


def trainee(
    rank: int = 0, world: int = 1, data: Examples | None = None, double: bool = False, device: str = "cpu", **options
) -> Trainee:
    """``double``: precision in which rounding does not show, where Adam makes much of it: 0.05 of a loss in six steps."""
    torch.manual_seed(0)
    data = data or examples()
    texts = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32))
    settings = TrainingOptions(batch_size=BATCH, lr=1e-3, **options)
    order = Order(len(data), BATCH, seed=0)
    alignment = Alignment(12, 5)
    if double:
        alignment, texts = alignment.double(), texts.double()
        data = dataclasses.replace(
            data, features=data.features.astype(np.float64), coordinates=data.coordinates.astype(np.float64)
        )
    return Trainee(alignment, settings, data, texts, order, torch.device(device), rank, world)


def losses(one: Trainee, first: int = 0, last: int = STEPS) -> list[tuple[float, float]]:
    for step in range(first, last):
        one.step(step)
    return [(point["text"], point["location"]) for point in one.history]


VARIANTS = ({}, {"queue": 20, "same_place_km": 500})


def worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=world)
    for number, options in enumerate(VARIANTS):
        one = trainee(rank, world, double=True, **options)
        curve = losses(one)
        if rank == 0:
            torch.save({"curve": curve, "weights": one.alignment.state_dict()}, f"{folder}/{number}.pt")
    dist.destroy_process_group()


def test_two_workers_are_one(tmp_path):
    """Half the batch each: the same losses and weights."""
    mp.start_processes(worker, (2, str(tmp_path)), nprocs=2, start_method="spawn")
    for number, options in enumerate(VARIANTS):
        alone = trainee(double=True, **options)
        curve = losses(alone)
        both = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert len(curve) == STEPS
        assert np.array(both["curve"]) == pytest.approx(np.array(curve), rel=1e-9)
        for name, weight in alone.alignment.state_dict().items():
            assert torch.allclose(both["weights"][name], weight, rtol=1e-6), name


def test_going_on_is_as_if_nothing_had_happened(tmp_path):
    whole = trainee()
    curve = losses(whole, 0, 7)
    first = trainee()
    losses(first, 0, 4)
    first.save(tmp_path, 4)
    second = trainee()
    assert second.load(tmp_path) == 4
    assert losses(second, 4, 7) == curve
    weights = zip(whole.alignment.state_dict().values(), second.alignment.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_checkpoint_of_another_architecture(tmp_path):
    one = trainee()
    one.step(0)
    one.save(tmp_path, 1)
    other = trainee()
    other.alignment = Alignment(8, 5)
    with pytest.raises(UsageError, match="checkpoint is of another architecture"):
        other.load(tmp_path)


def test_learning_brings_the_loss_down():
    one = trainee(epochs=20)
    curve = losses(one, 0, 40)
    assert sum(curve[-1]) < 0.6 * sum(curve[0])


def test_a_loss_that_is_no_number_names_the_photos():
    data, first = examples(), Order(50, BATCH, seed=0).rows(0)
    data.features[first[3]] = np.nan
    one = trainee(data=data)
    with pytest.raises(UsageError, match=rf"at step 1: .*{1000 + first[0]}"):
        one.step(0)
    assert torch.isfinite(one.alignment.text_scale)


def test_every_photo_once_an_epoch():
    order = Order(50, 16, seed=3)
    assert order.steps_an_epoch == 3
    first = np.concatenate([order.rows(step) for step in range(3)])
    second = np.concatenate([order.rows(step) for step in range(3, 6)])
    assert len(set(first)) == 48
    assert first.tolist() != second.tolist()
    assert order.rows(1).tolist() == Order(50, 16, seed=3).rows(1).tolist()
    assert order.before(0, 20).tolist() == []
    assert order.before(2, 20).tolist() == [*order.rows(1)[::-1], *order.rows(0)[::-1][:4]]
