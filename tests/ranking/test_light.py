"""The light ranker: its loss, its fitting and its folder."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import lite
from geoloc.errors import UsageError
from geoloc.index.store import IndexInfo
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.choosers import Light
from geoloc.ranking.evidence import feature_names
from geoloc.ranking.light import LightRanker, checksum, fixed_rule, listwise_loss
from geoloc.ranking.light_fitting import Questions, cross_fitted, fit
from geoloc.ranking.light_folder import INFO, WEIGHTS, LightInfo, read_light
from geoloc.storage import Folder, S3Options

S3 = S3Options()
PHOTOS = IndexInfo("photos", "encoder-1", "lite", "m", 100, 8)


def info(**changes) -> LightInfo:
    return dataclasses.replace(LightInfo("rule", ("photos",), ("encoder-1",), 4, Pooling(), 40.0), **changes)


def questions(n: int = 400, seed: int = 0) -> Questions:
    """Of eight features one tells how near a place is: the truth is that of the highest, if it is above the others' noise."""
    random = np.random.default_rng(seed)
    evidence = random.normal(0, 1, (n, 5, 8)).astype(np.float32)
    there = random.random((n, 5)) < 0.9
    there[:, 0] = True
    km = np.where(there, 10 ** (2 - evidence[..., 3] + random.normal(0, 0.2, (n, 5))), np.inf)
    return Questions(evidence, there, km, random.integers(0, 40, n))


def test_the_loss_by_hand():
    """Scores ln 3 and 0 choose with 3/4 and 1/4; the third is no place."""
    scores, there = torch.tensor([[np.log(3.0), 0.0, 50.0]]), torch.tensor([[True, True, False]])
    assert listwise_loss(scores, torch.tensor([[2.0, 0.4, 7.0]]), there).item() == pytest.approx(
        -(0.75 * 2 + 0.25 * 0.4)
    )


def test_it_learns_what_tells_and_is_told_nothing_of_a_photographer_it_is_judged_on():
    asked = questions()
    scores = cross_fitted(asked, seed=0, steps=150)
    assert (scores[~asked.there] == -np.inf).all()
    best = asked.km[np.arange(len(asked)), scores.argmax(axis=1)]
    assert np.mean(best == asked.km.min(axis=1)) > 0.75
    told = dataclasses.replace(asked, km=np.random.default_rng(1).permutation(asked.km.ravel()).reshape(asked.km.shape))
    told = dataclasses.replace(told, km=np.where(told.there, np.nan_to_num(told.km, posinf=5e3), np.inf))
    blind = cross_fitted(told, seed=0, steps=150)
    chosen = told.km[np.arange(len(told)), blind.argmax(axis=1)]
    assert np.mean(chosen == told.km.min(axis=1)) < 0.4  # 0.22 by chance: nothing is learned by heart


def test_the_same_questions_give_the_same_ranker():
    one, two = (fit(questions(100), seed=3, steps=20).to_bytes() for _ in range(2))
    assert one == two
    assert fit(questions(100), seed=4, steps=20).to_bytes() != one


def test_the_fixed_rule_is_similarity_and_region():
    names = feature_names(["gallery", "photos"])
    features = np.zeros((1, 2, len(names)), np.float32)
    features[0, :, names.index("photos best")] = [0.0, -0.1]
    features[0, :, names.index("region")] = np.log([0.02, 0.8])
    scores = fixed_rule(["gallery", "photos"], 40.0, 0.03)(features)[0]
    assert scores == pytest.approx([40 * 0.03 * np.log(0.02), 40 * (-0.1 + 0.03 * np.log(0.8))], rel=1e-5)


def _folder(path, ranker: LightRanker | None = None, **changes) -> Folder:
    folder = Folder(str(path))
    if ranker:
        folder.write(WEIGHTS, ranker.to_bytes())
        changes |= {"model": "network", "weights": checksum(ranker.to_bytes())}
    folder.write(INFO, info(**changes).to_json())
    return folder


def test_a_folder_is_read_and_scores_as_it_was_fitted(tmp_path):
    ranker = LightRanker(len(feature_names(["photos"]))).eval()
    folder = _folder(tmp_path, ranker)
    assert read_light(folder).pooling == Pooling()
    features = np.random.default_rng(0).normal(0, 1, (3, 4, 6)).astype(np.float32)
    row = np.array([[1, 2, 3, 4], [5, 6, -1, -1], [7, -1, -1, -1]])
    found = Candidates(row, *np.zeros((3, 3, 4)), evidence=features)
    scores = Light(str(tmp_path)).load(lite(), "cpu", S3)(np.zeros((3, 8)), found)
    assert (scores[row < 0] == -np.inf).all()
    with torch.no_grad():
        expected = ranker(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(scores[row >= 0], expected[row >= 0], rtol=1e-6)


def test_the_same_indexes_in_another_order_are_refused(tmp_path):
    one, two = (dataclasses.replace(PHOTOS, files={"vectors.npy": {"blake2b": name}}) for name in "ab")
    both = {"kinds": ("photos",) * 2, "encoders": ("encoder-1",) * 2, "indexes": (one.fingerprint, two.fingerprint)}
    _folder(tmp_path, **both)
    Light(str(tmp_path)).check_indexes([one, two], 4, S3)
    with pytest.raises(UsageError, match="learned from these indexes in another order"):
        Light(str(tmp_path)).check_indexes([two, one], 4, S3)


@pytest.mark.parametrize(
    ("infos", "places", "message"),
    [
        ([PHOTOS, PHOTOS], 4, "learned from indexes of photos, in this order, and --index names photos, photos"),
        ([dataclasses.replace(PHOTOS, kind="gallery")], 4, "--index names gallery"),
        ([dataclasses.replace(PHOTOS, weights="encoder-2")], 4, "another encoder"),
        ([PHOTOS], 5, "--candidates 5: --light-ranker .* learned from 4 places"),
    ],
)
def test_other_lists_than_it_learned_from_are_refused(tmp_path, infos, places, message):
    _folder(tmp_path)
    Light(str(tmp_path)).check_indexes([PHOTOS], 4, S3)
    with pytest.raises(UsageError, match=message):
        Light(str(tmp_path)).check_indexes(infos, places, S3)


def test_what_is_no_light_ranker(tmp_path):
    with pytest.raises(UsageError, match="a recipe with the chooser light needs it"):
        Light().check(lite(), 4, S3)
    with pytest.raises(UsageError, match=r"no light\.json there; make one with train_light\.py"):
        Light(str(tmp_path)).check(lite(), 4, S3)
    folder = _folder(tmp_path, LightRanker(6))
    folder.write(WEIGHTS, LightRanker(6).to_bytes())  # others, by chance
    with pytest.raises(UsageError, match=r"cannot read light\.safetensors \(ValueError: its checksum differs\)"):
        Light(str(tmp_path)).load(lite(), "cpu", S3)
    for text, message in (
        ("{", "cannot read"),
        (json.dumps({"format": 99}), "format 99"),
        ('{"format": 1}', "cannot read"),
    ):
        folder.write(INFO, text.encode())
        with pytest.raises(UsageError, match=message):
            Light(str(tmp_path)).check(lite(), 4, S3)


def test_its_fingerprint_is_what_decides_its_scores():
    assert info(photos=7).fingerprint == info().fingerprint
    assert info(pooling=Pooling(depth=9)).fingerprint != info().fingerprint
