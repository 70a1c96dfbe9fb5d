"""GeoRanker's loss against the worked examples of its released code (methods.md 8)."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from geoloc.ranking.losses import first_order_loss, multi_order_distance_loss, second_order_loss

A = torch.tensor([[1, 0.5, -0.25, 2]]), torch.tensor([[10.0, 500, 3, 1200]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("k", "first", "code", "total_code", "paper", "total_paper"),
    [
        (1, 2.778514, 0.859403, 2.202780, 2.649366, 2.739769),
        (2, 2.121441, 1.423553, 1.912075, 1.947390, 2.069226),
        (None, 1.486074, 1.622825, 1.527099, 1.622825, 1.527099),
    ],
)
def test_worked_examples(k, first, code, total_code, paper, total_paper):
    assert first_order_loss(*A, k).item() == pytest.approx(first, abs=1e-6)
    for kind, second, total in (("code", code, total_code), ("paper", paper, total_paper)):
        assert second_order_loss(*A, k, kind).item() == pytest.approx(second, abs=1e-6)
        assert multi_order_distance_loss(*A, k, 0.7, kind).item() == pytest.approx(total, abs=1e-6)


def test_uniform_scores():
    scores, distances = torch.zeros(1, 4), torch.tensor([[4.0, 2, 1, 3]])
    assert first_order_loss(scores, distances).item() == pytest.approx(np.log(4))
    assert second_order_loss(scores, distances).item() == pytest.approx(np.mean([np.log(3), np.log(2), 0]))
    paper = np.mean([np.log(6), np.log(5), np.log(4)])
    assert second_order_loss(scores, distances, second_order="paper").item() == pytest.approx(paper)


def test_finite_where_the_released_code_is_not():
    distances = torch.tensor([[1.0, 2, 3]])
    assert first_order_loss(torch.tensor([[100.0, 0, -1]]), distances).item() == pytest.approx(0, abs=1e-6)
    assert first_order_loss(torch.tensor([[-120.0, 0, -1]]), distances).item() == pytest.approx(120.313262, abs=1e-4)


SCORES = hnp.arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32))
DISTANCES = hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 20_000), unique=True)


@given(SCORES, DISTANCES, st.sampled_from([1, 2, None]), st.sampled_from(["code", "paper"]))
@settings(max_examples=50, deadline=None)
def test_finite_and_blind_to_a_shift_and_to_the_order(scores, distances, k, second_order):
    scores, distances = torch.from_numpy(scores).requires_grad_(), torch.from_numpy(distances)
    loss = multi_order_distance_loss(scores, distances, k, second_order=second_order)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()
    order = torch.randperm(5)
    turned = multi_order_distance_loss(scores[:, order] + 7, distances[:, order], k, second_order=second_order)
    assert turned.item() == pytest.approx(loss.item(), rel=1e-3, abs=2e-2)


@pytest.mark.parametrize("second_order", ["code", "paper"])
@pytest.mark.parametrize("k", [1, 3, None])
def test_a_masked_candidate_is_no_candidate(random, second_order, k):
    scores, distances = (
        torch.from_numpy(random.normal(size=(2, 6))).float(),
        torch.from_numpy(random.uniform(size=(2, 6))),
    )
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, True]])
    alone = [
        multi_order_distance_loss(scores[i][mask[i]][None], distances[i][mask[i]][None], k, second_order=second_order)
        for i in range(2)
    ]
    together = multi_order_distance_loss(scores, distances, k, second_order=second_order, mask=mask)
    assert together.item() == pytest.approx(float(sum(alone) / 2), rel=1e-5)


def test_one_candidate_teaches_nothing():
    scores = torch.tensor([[3.0]], requires_grad=True)
    loss = multi_order_distance_loss(scores, torch.tensor([[5.0]]))
    loss.backward()
    assert (loss.item(), scores.grad.item()) == pytest.approx((0, 0), abs=1e-6)


def test_equal_distances_keep_their_order():
    distances = torch.tensor([[7.0, 7.0, 7.0]])
    first = first_order_loss(torch.tensor([[1.0, 2, 3]]), distances).item()
    assert first == pytest.approx(np.log(np.exp([1.0, 2, 3]).sum()) - 1, abs=1e-6)


def test_the_right_order_costs_less_than_the_wrong_one(random):
    distances = torch.from_numpy(random.uniform(1, 1000, (20, 7)))
    right = multi_order_distance_loss(-distances.log(), distances)
    assert right < multi_order_distance_loss(distances.log(), distances)


def test_scores_learn_the_order():
    distances = torch.tensor([[300.0, 20, 5000, 1, 900]])
    scores = torch.zeros(1, 5, requires_grad=True)
    optimizer = torch.optim.SGD([scores], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        multi_order_distance_loss(scores, distances, None).backward()
        optimizer.step()
    assert scores.argsort(descending=True).tolist() == distances.argsort().tolist()
