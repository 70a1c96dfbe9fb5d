"""Train a light ranker, which puts places in order by their evidence in microseconds a photo, from indexes alone.

python jobs/train_light.py s3://bucket/index s3://bucket/light
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("train-light")
