"""Learn which photos a heavy ranker is worth its price for, from two runs over photos of known place: without it, and with it.

python jobs/train_gate.py s3://bucket/light-run s3://bucket/heavy-run s3://bucket/gate
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("train-gate")
