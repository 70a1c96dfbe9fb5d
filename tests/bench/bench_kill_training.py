"""A training job killed half-way and started again: its loss curve against one that ran through.

python -m tests.bench.bench_kill_training
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from geoloc.toy.archive import write_archive
from geoloc.toy.planet import Planet

SETTINGS = ["--preset", "lite", "--epochs", "6", "--batch-size", "32", "--checkpoint-steps", "10"]
PHOTOS, KILL_AT = 400, 40


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_archive(root / "photos", root / "photos.csv", Planet(), PHOTOS)
        command = [sys.executable, "jobs/train_alignment.py", str(root / "photos.csv")]
        subprocess.run([*command, str(root / "whole"), *SETTINGS], check=True, stderr=subprocess.DEVNULL)
        killed = [*command, str(root / "killed"), *SETTINGS, "--features", str(root / "whole")]
        with subprocess.Popen(killed, stderr=subprocess.DEVNULL) as job:
            while step(root / "killed") < KILL_AT:
                time.sleep(0.02)
            job.send_signal(signal.SIGKILL)
        print(f"killed at step {step(root / 'killed')}")
        subprocess.run(killed, check=True, stderr=subprocess.DEVNULL)
        whole, again = curve(root / "whole"), curve(root / "killed")
        print(
            f"{len(whole)} points and {len(again)}; largest difference of the losses {np.abs(whole - again).max():.2g}"
        )


def step(folder: Path) -> int:
    try:
        return json.loads((folder / "progress.json").read_bytes())["step"]
    except (OSError, ValueError):
        return 0


def curve(folder: Path) -> np.ndarray:
    history = json.loads((folder / "progress.json").read_bytes())["history"]
    return np.array([[point["step"], point["text"], point["location"]] for point in history])


if __name__ == "__main__":
    main()
