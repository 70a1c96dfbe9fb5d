"""Which photos a heavy ranker is asked about."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from geoloc.errors import UsageError
from geoloc.estimate.gate import ONE_PHOTOGRAPHER, Gate, Worth, fit_gate, read_gate
from geoloc.schema import CANDIDATE
from geoloc.storage import Folder, S3Options


def photos(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, of which the first tells how unsure the light answer is, and both errors: the heavy ranker puts right half of the
    unsure ones, and spoils one in fifty."""
    unsure = random.uniform(0, 1, n)
    right = random.random(n) > unsure * 0.8
    heavy = np.where(right, random.random(n) > 0.02, random.random(n) < 0.5 * unsure)
    table = np.column_stack([unsure, random.normal(0, 1, (n, 3))])
    return table, np.where(right, 3.0, 300.0), np.where(heavy, 3.0, 300.0)


def gain(gate: Gate, above: float, given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Share of photos that are ranked, and points gained by it."""
    table, light, heavy = given
    ranked = gate.expect(table) > above
    return ranked.mean(), 100 * (((heavy < 25) * 1.0 - (light < 25)) * ranked).mean()


def test_a_fifth_of_the_photos_brings_far_more_than_a_fifth_at_random():
    random = np.random.default_rng(0)
    gate, fresh = fit_gate(*photos(random, 4_000), {}, 1.0), photos(random, 20_000)
    everything = gain(gate, -np.inf, fresh)[1]
    share, points = gain(gate, gate.threshold_of_share(0.3), fresh)
    assert share == pytest.approx(0.3, abs=0.03)
    assert points > 0.6 * everything
    assert gain(gate, gate.threshold_of_share(1), fresh) == (1.0, everything)
    by_share = gate.evidence["acc_25km_by_share"]["0.3"]
    assert by_share["random"] < by_share["gate"] <= by_share["oracle"]


def test_the_promised_loss_is_kept_by_gates_that_are_drawn_anew():
    """With probability 0.95: of 100, more than 12 fail by chance once in 500."""
    random, promised, failed, shares = np.random.default_rng(1), 2.0, 0, []
    fresh = photos(random, 50_000)
    everything = gain(fit_gate(*photos(random, 400), {}, 1.0), -np.inf, fresh)[1]
    for _ in range(100):
        gate = fit_gate(*photos(random, 1_500), {}, 1.0)
        share, points = gain(gate, gate.threshold_of_risk(promised), fresh)
        failed += everything - points > promised
        shares.append(share)
    assert failed <= binom.ppf(0.998, 100, 0.05)
    assert np.mean(shares) < 0.8  # and it saves something


def gate(**changes) -> Gate:
    expected = np.linspace(-0.1, 0.8, 1_000).tolist()
    made = Gate({}, 1.0, [0.0], [1.0], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], expected, [False] * 1_000, 1_000.0)
    return dataclasses.replace(made, **changes)


def test_thresholds_by_hand():
    """Of none that is lost, Clopper and Pearson's bound for 1,000 is 1 - 0.05^(1/1000) = 0.299 %; of one 0.474 %."""
    one = gate()
    assert one.threshold_of_share(0.2) == one.expected[799]
    assert one.threshold_of_share(1.0) == -np.inf
    assert one.threshold_of_risk(0.3) == one.expected[-1]
    with pytest.raises(
        UsageError, match=r"--heavy-risk 0.29: .* 1,000 photos are too few to promise that; it needs 1,032"
    ):
        one.threshold_of_risk(0.29)
    lost = gate(gained=[number in (100, 300) for number in range(1_000)])
    assert lost.threshold_of_risk(0.3) == lost.expected[99]
    assert lost.threshold_of_risk(0.48) == lost.expected[299]
    equal = gate(expected=[0.0] * 150 + [0.5] * 850, gained=lost.gained)
    assert equal.threshold_of_risk(0.3) == -np.inf  # 50 of them can not be told from that one
    assert equal.threshold_of_risk(0.48) == 0.0


def test_a_photographers_photos_are_not_independent():
    """Of 60 photographers with some photos, some with hundreds, whose gains are all or nothing, no promise is made as of 3,000."""
    random = np.random.default_rng(0)
    group = random.choice(60, 3_000, p=(p := 1 / np.arange(1, 61)) / p.sum())
    lucky = random.random(60) < 0.05
    table, light = random.normal(0, 1, (3_000, 3)), np.full(3_000, 300.0)
    heavy = np.where(lucky[group], 3.0, 300.0)
    one = fit_gate(table, light, heavy, {}, 1.0, group)
    assert one.effective < 60
    independent = fit_gate(table, light, random.permutation(heavy), {}, 1.0, group)
    assert independent.effective > 500
    assert one.evidence["halves"] == "photographers"
    assert len(one.expected) == pytest.approx(1_500, abs=300)


def test_of_one_photographer_the_halves_are_of_photos(random):
    gate = fit_gate(*photos(random, 1_000), {}, 1.0, np.zeros(1_000, int))
    assert (gate.evidence["halves"], len(gate.expected)) == (ONE_PHOTOGRAPHER, 500)


def test_what_is_expected_by_hand():
    """Logits 0, 0 and x: (e^x - 1) / (e^x + 2)."""
    assert gate().expect(np.array([[0.0], [1.0]])) == pytest.approx([0, (np.e - 1) / (np.e + 2)])


def test_it_looks_at_the_candidates(random):
    """Photos whose candidates all agree, and photos whose candidates lie anywhere."""
    lists, sure = [], random.random(600) < 0.5
    for certain in sure:
        places = random.normal(0, 0.01, (6, 2)) if certain else random.uniform(-60, 60, (6, 2))
        lists.append([{"lat": lat, "lon": lon, "score": -n, "similarity": -n} for n, (lat, lon) in enumerate(places)])
    candidates = pa.array(lists, pa.list_(CANDIDATE))
    worth = Worth(dataclasses.replace(gate(), mean=[0.0] * 14, std=[1.0] * 14, weights=[[0.0] * 3] * 15), 0.0)
    assert not worth(candidates).any()
    table = np.array([_features(one) for one in lists])
    learned = fit_gate(table, np.where(sure, 3.0, 300.0), np.full(600, 3.0), {}, 1.0)
    assert (Worth(learned, 0.5)(candidates) == ~sure).mean() > 0.95


def _features(candidates: list[dict]) -> np.ndarray:
    from geoloc.estimate.calibration import features

    columns = (np.array([[one[name] for one in candidates]]) for name in ("score", "similarity", "lat", "lon"))
    return features(*columns, 1.0)[0]


def test_what_is_no_gate(tmp_path, random):
    with pytest.raises(UsageError, match=r"at least 200 photos .* there are 90"):
        fit_gate(*photos(random, 90), {}, 1.0)
    with pytest.raises(UsageError, match=r"no such file; make it with jobs/train_gate\.py"):
        read_gate(str(tmp_path), S3Options())
    folder = Folder(str(tmp_path))
    for text, message in (("{", "is no gate"), ('{"format": 7}', "format 7"), ('{"format": 1, "x": 2}', "is no gate")):
        folder.write("gate.json", text.encode())
        with pytest.raises(UsageError, match=message):
            read_gate(str(tmp_path), S3Options())
    folder.write("gate.json", gate(applies_to={"encoder": "lite"}).to_json())
    assert read_gate(str(tmp_path / "gate.json"), S3Options()) == gate(applies_to={"encoder": "lite"})
    with pytest.raises(UsageError, match=r"was learned from other runs .*encoder was 'lite', is now 'geoclip'"):
        read_gate(str(tmp_path), S3Options()).check({"encoder": "geoclip"}, "--heavy-gate x")
