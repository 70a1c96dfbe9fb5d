"""The training job on a real cluster, and what its alignment does elsewhere."""

import csv
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from geoloc.encoders.alignment import Alignment
from geoloc.encoders.presets import preset
from geoloc.encoders.text import text_encoder
from geoloc.errors import UsageError
from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.training.alignment import AlignmentOptions, train_alignment
from geoloc.training.examples import Examples, Order
from geoloc.training.options import TrainingOptions
from geoloc.training.steps import Trainee
from tests.conftest import REPOSITORY

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
    return AlignmentOptions(str(source), str(output), preset="lite", training=TRAINING)


@pytest.fixture(scope="module")
def trained(options, tmp_path_factory) -> Folder:
    """By a job whose worker was killed, and that was killed itself, and started again."""
    out, log = Path(options.output), tmp_path_factory.mktemp("log") / "log"
    command = [sys.executable, "jobs/train_alignment.py", options.source, options.output, "--preset", "lite"]
    command += ["--epochs", "20", "--batch-size", "20", "--lr", "1e-4", "--checkpoint-steps", "15"]
    with log.open("w") as sink:
        job = subprocess.Popen(command, cwd=REPOSITORY, stderr=sink)
        wait_for_step(out, 18, job, log)
        workers = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in str(p.info["cmdline"])]
        assert workers
        for process in workers:
            process.kill()
        killed_at = step(out)
        while step(out) >= killed_at:  # until the next worker has gone back to the checkpoint
            time.sleep(0.02)
            assert job.poll() is None, log.read_text()
        wait_for_step(out, 35, job, log)
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert not (out / "alignment.json").exists()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "indexed 60, no_position 1, not_found 1" in done.stderr
    return Folder(options.output)


def step(out: Path) -> int:
    try:
        return json.loads((out / "progress.json").read_bytes())["step"]
    except (OSError, ValueError):
        return 0


def wait_for_step(out: Path, least: int, job: subprocess.Popen, log: Path) -> None:
    while step(out) < least:
        time.sleep(0.02)
        assert job.poll() is None, log.read_text()


def test_the_curve_is_that_of_a_run_that_was_never_killed(trained):
    """Which is run here, on the same features, without Ray."""
    examples = Examples.open(Parts(trained / "features"))
    texts = torch.from_numpy(text_encoder(preset("lite")).encode(examples.sentences))
    torch.manual_seed(0)
    order = Order(60, 20, seed=0)
    alone = Trainee(Alignment(1280, 256), TRAINING, examples, texts, order, torch.device("cpu"))
    for number in range(STEPS):
        assert alone.step(number) is None
    history = json.loads(trained.read("progress.json"))["history"]
    assert [point["step"] for point in history] == [point["step"] for point in alone.history]
    for name in ("text", "location"):
        ours, expected = ([point[name] for point in points] for points in (history, alone.history))
        assert ours == pytest.approx(expected, rel=1e-3)
    assert history[-1]["location"] < history[0]["location"]


def test_it_leaves_a_preset(trained, options, caplog):
    caplog.set_level("INFO", "geoloc")
    models = preset(trained.uri)
    assert (models.model, models.similarity_scale > 40, models.has_location_space) == (preset("lite").model, True, True)
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
    refused(r"--preset .*: is trained already", preset=trained.uri)
    elsewhere = {"source": "/elsewhere", "output": str(tmp_path / "other")}
    refused(r"--features .*: its source is '.*photos.csv', and this run's is '/elsewhere'", **elsewhere)
    changed = dataclasses.replace(TRAINING, lr=1.0)
    refused(r"OUTPUT .* holds a run with other settings: lr was 0.0001, is now 1.0", changed, output=options.output)
