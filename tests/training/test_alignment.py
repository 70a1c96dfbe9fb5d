"""The training job on a real cluster, and what its alignment does elsewhere."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image

from geoloc.encoders.alignment import Alignment
from geoloc.encoders.config import encoder_config
from geoloc.encoders.text import text_encoder
from geoloc.errors import UsageError
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.training.alignment import train_alignment
from geoloc.training.examples import Examples, Order
from geoloc.training.job_options import AlignmentOptions
from geoloc.training.options import TrainingOptions
from geoloc.training.steps import Trainee
from tests.conftest import kill_workers

pytestmark = pytest.mark.usefixtures("ray_cluster")

TRAINING = TrainingOptions(epochs=20, batch_size=20, lr=1e-4, checkpoint_steps=15)
STEPS = 60


@pytest.fixture(scope="module")
def source(toy, tmp_path_factory):
    """The toy's 60 references with names of their own, a photo that is gone, and one whose place is none."""
    path = tmp_path_factory.mktemp("source") / "photos.csv"
    names = sorted(str(p) for p in (toy / "references").rglob("*.jpg"))
    rows = [(name, "", "", "Town", "", "Land") for name in names]
    bare = tmp_path_factory.mktemp("bare") / "bare.jpg"
    Image.new("RGB", (64, 64)).save(bare)
    rows += [(names[0] + ".gone", 1, 2, "", "", ""), (str(bare), 95, 200, "", "", "")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "lat", "lon", "city", "region", "country"), *rows])
    return path


@pytest.fixture(scope="module")
def options(source, tmp_path_factory) -> AlignmentOptions:
    output = tmp_path_factory.mktemp("alignment") / "out"
    return AlignmentOptions(str(source), str(output), encoder="lite", training=TRAINING)


@pytest.fixture(scope="module")
def trained(options, request) -> Folder:
    """With a worker that is killed on the way, where there is time for that: the ranker's is in any case."""
    slow = request.config.getoption("--slow")
    killed = kill_workers(Path(options.output), 18) if slow else []
    assert train_alignment(options) == 0
    assert bool(killed) == slow
    return Folder(options.output)


def test_the_curve_is_that_of_a_run_that_was_never_killed(trained):
    """Which is run here, on the same features, without Ray."""
    examples = Examples.open(Parts(trained / "features"))
    texts = torch.from_numpy(text_encoder(encoder_config("lite")).encode(examples.sentences))
    torch.manual_seed(0)
    order = Order(60, 20, seed=0)
    alone = Trainee(Alignment(1280, 256), TRAINING, examples, texts, order, torch.device("cpu"))
    for number in range(STEPS):
        alone.step(number)
    history = json.loads(trained.read("progress.json"))["history"]
    assert [point["step"] for point in history] == [point["step"] for point in alone.history]
    for name in ("text", "location"):
        ours, expected = ([point[name] for point in points] for points in (history, alone.history))
        assert ours == pytest.approx(expected, rel=1e-2)  # what another processor's rounding comes to in these steps
    assert history[-1]["location"] < history[0]["location"]


def test_photos_without_a_place_are_told(trained):
    statuses = pa.concat_tables(Parts(trained / "features").tables(["status", "error_kind"])).to_pylist()
    counts = Counter(row["error_kind"] or row["status"] for row in statuses)
    assert counts == {"indexed": 60, "no_position": 1, "not_found": 1}


def test_it_leaves_an_encoder(trained, options, caplog):
    caplog.set_level("INFO", "geoloc")
    models = encoder_config(trained.uri)
    assert (models.model, models.similarity_scale > 40, models.has_location_space) == (
        encoder_config("lite").model,
        True,
        True,
    )
    assert json.loads(trained.read("alignment.json"))["steps"] == STEPS
    assert b"Geo-alignment" in trained.read("report.html")
    assert train_alignment(options) == 0
    assert "The alignment is trained" in caplog.text


def test_what_cannot_be_trained(options, trained, tmp_path):
    def refused(match, training=TRAINING, **changes):
        changes = {"output": str(tmp_path / "new"), "features": trained.uri} | changes
        with pytest.raises(UsageError, match=match):
            train_alignment(dataclasses.replace(options, training=training, **changes))

    refused(r"--batch-size 64: SOURCE .* has only 60 photos", TrainingOptions(batch_size=64))
    refused(r"--lr 0: must be above 0", TrainingOptions(lr=0))
    refused(r"--workers 3: must .* divide --batch-size 20", dataclasses.replace(TRAINING, workers=3))
    refused(r"--encoder .*: is trained already", encoder=trained.uri)
    elsewhere = {"source": "/elsewhere", "output": str(tmp_path / "other")}
    refused(r"--features .*: its source is '.*photos.csv', and this run's is '/elsewhere'", **elsewhere)
    changed = dataclasses.replace(TRAINING, lr=1.0)
    refused(r"OUTPUT .* holds a run with other settings: lr was 0.0001, is now 1.0", changed, output=options.output)
