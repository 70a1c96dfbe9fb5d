import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoloc.geocells.losses import among_all, among_batch, smoothed


def test_infonce_of_a_batch_by_hand():
    """Photos of cells 4, 4, 9 and none; cosine over temperature with the cell of each photo of the batch."""
    logits = torch.tensor([[2.0, 2.0, 1.0, 5.0], [3.0, 3.0, 0.0, 5.0], [0.0, 0.0, 1.0, 5.0], [1.0, 1.0, 1.0, 5.0]])
    batch, own = torch.tensor([4, 4, 9, -1]), torch.arange(4)
    literal = [
        math.log(2 * math.e**2 + math.e) - 2,
        math.log(2 * math.e**3 + 1) - 3,
        math.log(2 + math.e) - 1,
        0.0,
    ]
    masked = [math.log(math.e**2 + math.e) - 2, math.log(math.e**3 + 1) - 3, literal[2], 0.0]
    assert among_batch(logits, own, batch, masked=False).tolist() == pytest.approx(literal, abs=1e-6)
    assert among_batch(logits, own, batch, masked=True).tolist() == pytest.approx(masked, abs=1e-6)


@given(st.integers(0, 1000), st.booleans())
def test_a_workers_losses_are_those_of_its_photos_in_the_batch(seed, masked):
    draw = np.random.default_rng(seed)
    logits = torch.from_numpy(draw.normal(size=(6, 6)))
    batch = torch.from_numpy(draw.integers(-1, 3, 6))
    whole = among_batch(logits, torch.arange(6), batch, masked)
    for mine in (slice(0, 3), slice(3, 6)):
        assert torch.allclose(among_batch(logits[mine], torch.arange(6)[mine], batch, masked), whole[mine])


def test_a_batch_whose_photos_are_in_no_cell():
    logits = torch.zeros(2, 2, requires_grad=True)
    loss = among_batch(logits, torch.arange(2), torch.tensor([-1, -1]), masked=True).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0], [0, 0]]


def test_cross_entropy_is_a_sum_over_all_cells():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    expected = [math.log(sum(map(math.exp, (1, 2, 3)))) - 2, 0.0]
    assert among_all(logits, torch.tensor([1, -1])).tolist() == pytest.approx(expected, abs=1e-6)


def test_haversine_smoothing_by_hand():
    """A cell 65 km farther than the photo's own weighs 1/e; one that is nearer than its own, 1."""
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    log_p = [value - math.log(1 + math.e + math.e**2) for value in (0, 1, 2)]
    found = smoothed(logits, torch.tensor([[10.0, 75.0, 3.0]]), torch.tensor([0]), 65)
    assert found.item() == pytest.approx(-(log_p[0] + log_p[1] / math.e + log_p[2]), abs=1e-5)
    assert smoothed(logits, torch.zeros(1, 3), torch.tensor([-1]), 65).item() == 0
