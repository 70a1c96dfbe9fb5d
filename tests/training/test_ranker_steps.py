"""A worker's part of the ranker's training, in this process."""

import dataclasses
import io
import json
import socket
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file

from geoloc.errors import UsageError
from geoloc.photos.views import AreaView, Picture
from geoloc.pipeline.georanking import PARTS
from geoloc.ranking.options import PromptOptions
from geoloc.results.parts import Parts
from geoloc.schema import GEORANKING
from geoloc.storage import Folder
from geoloc.training.options import RankerTrainingOptions
from geoloc.training.questions import Question, Questions
from geoloc.training.ranker_steps import RankerTrainee
from tests.conftest import REPOSITORY
from tests.training import two_workers

PROMPT = PromptOptions(max_pixels=4 * 28 * 28, min_pixels=4 * 28 * 28)
TRAINING = RankerTrainingOptions(photos_a_step=2, lr=1e-2, lora_rank=4)
STEPS = 6
VIEW = AreaView(28, PROMPT.min_pixels, PROMPT.max_pixels)


@pytest.fixture(autouse=True, scope="module")
def no_group_is_left():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture
def trainee(toy_base):
    def make(**changes) -> RankerTrainee:
        training = dataclasses.replace(TRAINING, **changes)
        return RankerTrainee(str(toy_base), training, PROMPT, STEPS, torch.device("cpu"))

    return make


@pytest.fixture(scope="module")
def questions(georanking) -> list[Question]:
    decoded = Questions.open(Parts(Folder(str(georanking)) / PARTS)).decoded(list(range(12)), VIEW, PROMPT.template)
    return [Question.of(row, PROMPT) for row in decoded.to_pylist()]


def test_questions_are_those_of_the_set(georanking):
    rows = Questions.open(Parts(Folder(str(georanking)) / PARTS))
    assert len(rows) == 30
    [decoded] = rows.decoded([17], VIEW, PROMPT.template).to_pylist()
    question, row = Question.of(decoded, PROMPT), rows.table.slice(17, 1).to_pylist()[0]
    assert question.picture.shape == (28, 56, 3)
    assert [(place.lat, place.lon) for place in question.places] == [tuple(at) for at in row["ref_gps"][:4]]
    assert [(place.lat, place.lon) for place in question.negatives] == [tuple(at) for at in row["ref_gps"][4:]]
    assert question.places[0].text == " ".join(row["ref_texts"][0])
    assert question.km.tolist() == row["ref_km"][:4]
    assert len(question.pictures) == 4
    expected = VIEW.of(Picture.of(Image.open(io.BytesIO(row["ref_images"][2]))))
    assert np.abs(question.pictures[2].astype(int) - expected).max() <= 2


def test_a_question_whose_picture_cannot_be_read(questions):
    table = pa.Table.from_pylist(
        [{"id": 0, "gps": [1.0, 2.0], "ref_gps": [[1.0, 2.0]], "ref_texts": [[]], "ref_km": [0.0], "image": b"no"}],
        pa.schema(
            [GEORANKING.field(name) for name in ("id", "gps", "ref_gps", "ref_texts", "ref_km", "image", "ref_images")]
        ),
    )
    broken = table.set_column(6, "ref_images", pa.array([[None]], GEORANKING.field("ref_images").type))
    [row] = Questions(broken).decoded([0], VIEW, PROMPT.template).to_pylist()
    assert Question.of(row, PROMPT) is None


def test_it_goes_on_as_if_nothing_had_happened(trainee, questions, tmp_path):
    """Dropout and all."""
    through = trainee()
    for step in range(STEPS):
        through.step(step, questions[2 * step : 2 * step + 2])
    through.validate(STEPS, questions)
    first = trainee()
    for step in range(3):
        first.step(step, questions[2 * step : 2 * step + 2])
    first.save(tmp_path, 3)
    second = trainee(seed=5)  # weights of its own, until it loads
    second._options = TRAINING
    assert second.load(tmp_path) == 3
    for step in range(3, STEPS):
        second.step(step, questions[2 * step : 2 * step + 2])
    second.validate(STEPS, questions)
    assert len(second.history) == STEPS
    for ours, expected in zip(second.history, through.history, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    assert second.validations == through.validations


@pytest.mark.parametrize("otherwise", [{"checkpointing": True}, {"zero": 3}, {"offload": True}])
def test_ways_to_save_memory_change_nothing(trainee, questions, otherwise):
    curves = []
    for changes in ({}, otherwise):
        subject = trainee(lora_dropout=0.0, **changes)
        for step in range(3):
            subject.step(step, questions[2 * step : 2 * step + 2])
        curves.append([point["loss"] for point in subject.history])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_workers_that_share_the_model_out_learn_as_one(trainee, toy_base, tmp_path):
    """Whatever one of them cannot read, rank or ask, and though one has a photo more than the other."""
    port = _free_port()
    command = [sys.executable, "-m", "tests.training.two_workers"]
    workers = [
        subprocess.Popen([*command, str(rank), "2", str(port), str(toy_base), str(tmp_path)], cwd=REPOSITORY)
        for rank in range(2)
    ]
    assert [worker.wait(timeout=180) for worker in workers] == [0, 0]
    one, other = (json.loads((tmp_path / f"found-{rank}.json").read_bytes()) for rank in range(2))
    assert one == other

    alone, photos = trainee(**(dataclasses.asdict(two_workers.TRAINING) | {"zero": 2})), two_workers.questions()
    for step in range(STEPS):
        alone.step(step, photos[2 * step : 2 * step + 2])
        if step in (2, STEPS - 1):
            alone.validate(step + 1, photos)
    assert one["losses"] == pytest.approx([point["loss"] for point in alone.history], rel=1e-4)
    assert [found["photos"] for found in one["validations"]] == [11, 11]
    for ours, expected in zip(one["validations"], alone.validations, strict=True):
        assert ours["median_km"] == pytest.approx(expected["median_km"])
    assert (one["bad_turns"], one["finite"]) == (1, True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_validation_is_about_the_scores(trainee, questions):
    subject = trainee()
    subject.validate(0, [*questions, None])
    [found] = subject.validations
    assert (found["photos"], found["nearest_first_by_chance"]) == (12, 0.25)
    assert found["nearest_first_retrieved"] == np.mean([q.km[0] == q.km.min() for q in questions])
    assert found["median_km_retrieved"] == np.median([q.km[0] for q in questions])
    assert found["within_km_at_best"][25] == np.mean([q.km.min() < 25 for q in questions])


def test_a_photo_that_cannot_be_read_teaches_nothing(trainee, questions, tmp_path):
    subject = trainee(weight_decay=0.0)
    subject.step(0, [None, None])
    subject.save(tmp_path, 1)
    learned = load_file(tmp_path / "adapter_model.safetensors")
    assert all(not tensor.any() for name, tensor in learned.items() if "lora_B" in name)
    subject.step(1, [questions[0], None])


def test_a_loss_that_is_no_number_is_told(trainee, questions):
    subject = trainee()
    with torch.no_grad():
        next(p for name, p in subject._tuned.named_parameters() if "value_head.modules_to_save" in name).fill_(
            torch.nan
        )
    with pytest.raises(UsageError, match="the loss is no number at step 3: lower --lr"):
        subject.step(2, questions[:2])


def test_so_many_bad_turns_are_passed_over(trainee, questions, tmp_path):
    passed, without = trainee(max_bad_turns=1), trainee()
    two_workers.overflow_at(passed, questions[1])
    passed.step(0, questions[:2])
    without.step(0, [questions[0], None])
    for subject, name in ((passed, "passed"), (without, "without")):
        subject.save(tmp_path / name, 1)
    learned = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("passed", "without")]
    assert all(torch.equal(tensor, learned[1][name]) for name, tensor in learned[0].items())
    again = trainee(max_bad_turns=1)
    again.load(tmp_path / "passed")
    two_workers.overflow_at(again, questions[1])
    with pytest.raises(UsageError, match="no number at step 2: lower --lr, or pass over some"):
        again.step(1, questions[:2])


def test_a_checkpoint_of_another_rank_is_refused(trainee, questions, tmp_path):
    first = trainee()
    first.step(0, questions[:2])
    first.save(tmp_path, 1)
    with pytest.raises(UsageError, match="its checkpoint is of another --model or --lora-rank"):
        trainee(lora_rank=8).load(tmp_path)
