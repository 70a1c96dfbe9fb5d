"""Runs that are killed at named moments on stores that fail, as a table: rows out are photos in, none twice, by an independent reader.

    python -m tests.bench.bench_lives              # some 15 minutes
    python -m tests.bench.bench_lives the proof    # the points that hold these words

Every kill point with every mood of the store, five seeds each, on a disk and on an S3 server.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.bench.machine import start_s3
from tests.lives import MOODS, POINTS, Fate, live, store

SEEDS = 5


def main(words: str) -> None:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, start_s3() as s3:
        s3.create_bucket(Bucket="lives")
        print(f"| killed: | {' | '.join(MOODS)} |")
        print("|---|" + "---|" * len(MOODS))
        for row, point in enumerate(POINTS):
            if words not in point:
                continue
            cells = []
            for column, mood in enumerate(MOODS):
                lives = []
                for seed in range(SEEDS):
                    for kind in ("disk", "s3"):
                        path = Path(folder) / f"{kind}-{row}-{column}-{seed}"
                        fate = Fate(point, 1 + seed % 3, mood, failures=0 if mood == "well" else 3 + seed)
                        lives.append(live(store(kind, path), fate, seed))
                cells.append(f"{len(lives)} of {len(lives)} right, {min(lives)} to {max(lives)} lives")
            print(f"| {point} | {' | '.join(cells)} |", flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
