"""A training job killed half-way and started again: its loss curve against one that ran through.

python -m tests.bench.bench_kill_training
python -m tests.bench.bench_kill_training BASE SET      # the ranker, on a base model and a set from build_georanking.py
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

SETTINGS = ["--encoder", "lite", "--epochs", "6", "--batch-size", "32", "--checkpoint-steps", "10"]
RANKER_SETTINGS = ["--max-pixels", "9408", "--lr", "1e-3", "--checkpoint-steps", "10", "--validation-photos", "20"]
PHOTOS, KILL_AT, RANKER_KILL_AT = 400, 40, 25


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if len(sys.argv) > 1:
            base, questions = sys.argv[1:]
            command = [sys.executable, "jobs/train_ranker.py", questions]
            compare(command, ["--model", base, *RANKER_SETTINGS], [], root, RANKER_KILL_AT)
            return
        write_archive(root / "photos", root / "photos.csv", Planet(), PHOTOS)
        command = [sys.executable, "jobs/train_alignment.py", str(root / "photos.csv")]
        compare(command, SETTINGS, ["--features", str(root / "whole")], root, KILL_AT)


def compare(command: list[str], settings: list[str], again: list[str], root: Path, kill_at: int) -> None:
    subprocess.run([*command, str(root / "whole"), *settings], check=True, stderr=subprocess.DEVNULL)
    killed = [*command, str(root / "killed"), *settings, *again]
    with subprocess.Popen(killed, stderr=subprocess.DEVNULL) as job:
        while step(root / "killed") < kill_at:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    print(f"killed at step {step(root / 'killed')}")
    subprocess.run(killed, check=True, stderr=subprocess.DEVNULL)
    whole, resumed = curve(root / "whole"), curve(root / "killed")
    difference = np.abs(whole - resumed).max()
    print(f"{len(whole)} points and {len(resumed)}; largest difference of the losses {difference:.2g}")
    print("losses at ten of them:", whole[:: max(1, len(whole) // 10), 1:3].round(3).tolist())


def step(folder: Path) -> int:
    try:
        return json.loads((folder / "progress.json").read_bytes())["step"]
    except (OSError, ValueError):
        return 0


def curve(folder: Path) -> np.ndarray:
    history = json.loads((folder / "progress.json").read_bytes())["history"]
    names = ["text", "location"] if "text" in history[0] else ["first", "second"]
    return np.array([[point["step"], *(point[name] for name in names)] for point in history])


if __name__ == "__main__":
    main()
