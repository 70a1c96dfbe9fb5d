"""The ranker's training job on a real cluster, against the same training without Ray and DeepSpeed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file

from geoloc.errors import UsageError
from geoloc.photos.views import AreaView
from geoloc.pipeline.georanking import PARTS
from geoloc.ranking.georanker import load_base, with_new_adapter
from geoloc.ranking.losses import multi_order_distance_loss
from geoloc.ranking.options import ADAPTER, PromptOptions, RankerOptions, prompt_of
from geoloc.ranking.packing import Pack
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.training.examples import Order
from geoloc.training.job_options import RankerJobOptions
from geoloc.training.options import RankerTrainingOptions
from geoloc.training.questions import Question, Questions
from geoloc.training.ranker import train_ranker
from tests.conftest import kill_workers

pytestmark = pytest.mark.usefixtures("ray_cluster")

PROMPT = PromptOptions(max_pixels=4 * 28 * 28)
VIEW = AreaView(28, PROMPT.min_pixels, PROMPT.max_pixels)
TRAINING = RankerTrainingOptions(
    photos_a_step=3, lr=1e-2, lora_rank=4, lora_dropout=0, validation_photos=6, workers=2, checkpoint_steps=4
)
STEPS = 8
"""Of three photos, which two workers share unevenly."""


@pytest.fixture(scope="module")
def options(georanking, toy_base, tmp_path_factory) -> RankerJobOptions:
    output = str(tmp_path_factory.mktemp("ranker") / "out")
    return RankerJobOptions(str(georanking), output, str(toy_base), training=TRAINING, prompt=PROMPT)


@pytest.fixture(scope="module")
def questions(georanking) -> list[Question]:
    rows = Questions.open(Parts(Folder(str(georanking)) / PARTS))
    return [Question.of(row, PROMPT) for row in rows.decoded(list(range(len(rows))), VIEW, PROMPT.template).to_pylist()]


@pytest.fixture(scope="module")
def trained(options) -> Folder:
    """With a worker that is killed on the way."""
    killed = kill_workers(Path(options.output), 5)
    assert train_ranker(options) == 0
    assert killed
    return Folder(options.output)


def query(question: Question) -> RankQuery:
    shown = zip(question.places, question.pictures, strict=True)
    return RankQuery(question.picture, [RankCandidate(place, image) for place, image in shown], question.negatives)


def test_the_curve_is_that_of_plain_torch(trained, toy_base, questions):
    """Of one process with torch's AdamW, that was never killed."""
    torch.manual_seed(TRAINING.seed)
    base = load_base(str(toy_base))
    tuned = with_new_adapter(base, TRAINING.lora_rank, TRAINING.lora_alpha, TRAINING.lora_dropout).train()
    asker = GeoRankerScorer(base, str(toy_base), PROMPT)
    parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=TRAINING.weight_decay)
    rows = np.random.default_rng(TRAINING.seed).permutation(len(questions))[TRAINING.validation_photos :]
    order = Order(len(rows), TRAINING.photos_a_step, TRAINING.seed)
    losses = []
    for number in range(STEPS):
        asked = [questions[row] for row in rows[order.rows(number)]]
        with torch.no_grad():
            prompts = asker.encode_queries([query(question) for question in asked])
        scores = [tuned(Pack.of([prompt], "cpu")) for prompt in prompts]
        km = [torch.from_numpy(question.km) for question in asked]
        loss = sum(multi_order_distance_loss(s[None], d[None]) for s, d in zip(scores, km, strict=True)) / len(asked)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = TRAINING.lr * (1 - number / STEPS)
        optimizer.step()
        losses.append(loss.item())
    history = json.loads(trained.read("progress.json"))["history"]
    assert [point["step"] for point in history] == list(range(1, STEPS + 1))
    assert [point["loss"] for point in history] == pytest.approx(losses, rel=1e-3)
    learned = load_file(Path(trained.path()) / ADAPTER)
    for name, tensor in peft.get_peft_model_state_dict(tuned).items():
        assert torch.allclose(learned[name], tensor, atol=2e-3), name
        assert tensor.abs().max() > 2e-2


def test_it_leaves_a_ranker(trained, options, questions, caplog):
    """Which ranks the held-out photos as it did while it learned."""
    ranker = GeoRankerScorer.load(RankerOptions(options.model, trained, prompt_of(trained)))
    held_out = [questions[row] for row in np.random.default_rng(TRAINING.seed).permutation(len(questions))[:6]]
    chosen = [scores.argmax() for scores in ranker.rank([query(question) for question in held_out])]
    validations = json.loads(trained.read("progress.json"))["validations"]
    assert [found["step"] for found in validations] == [4, 8]
    hits = [q.km[n] == q.km.min() for q, n in zip(held_out, chosen, strict=True)]
    assert validations[-1]["nearest_first"] == pytest.approx(np.mean(hits))
    assert prompt_of(trained) == PROMPT
    assert b"GeoRanker" in trained.read("report.html")
    assert "train" not in [entry.name for entry in Path(trained.path()).iterdir()]
    caplog.set_level("INFO", "geoloc")
    assert train_ranker(options) == 0
    assert "The ranker is trained" in caplog.text


@pytest.mark.parametrize(
    ("changes", "training", "match"),
    [
        ({"source": "/nowhere"}, {}, "SOURCE /nowhere: is no finished training set"),
        ({"validation": "/nowhere"}, {}, "--validation /nowhere: is no finished training set"),
        ({}, {"photos_a_step": 40, "workers": 1}, "--photos-a-step 40: SOURCE .* has only 30 photos, 6 of them for"),
        ({}, {"workers": 0}, "--workers 0: must be at least 1"),
        ({}, {"lora_dropout": 2}, "--lora-dropout 2: must be from 0 to 1"),
        ({}, {"lr": 0}, "--lr 0: must be above 0"),
        ({"model": "/nowhere"}, {}, "--ranker-model /nowhere: cannot load its processor"),
        (
            {"prompt": PromptOptions(max_pixels=1)},
            {},
            "--min-pixels 3136: must be above 0 and not above --max-pixels 1",
        ),
    ],
)
def test_what_cannot_be_trained(options, tmp_path, changes, training, match):
    changed = dataclasses.replace(TRAINING, **training)
    with pytest.raises(UsageError, match=match):
        train_ranker(dataclasses.replace(options, **{"output": str(tmp_path / "out"), "training": changed} | changes))


def test_it_goes_on_only_with_the_same_settings(options, tmp_path):
    output = Folder(str(tmp_path))
    output.write("settings.json", json.dumps({"lr": 1.0}).encode())
    with pytest.raises(UsageError, match=r"lr was 1\.0, is now 0\.01"):
        train_ranker(dataclasses.replace(options, output=output.uri))
