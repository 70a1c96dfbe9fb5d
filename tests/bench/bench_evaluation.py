"""Judging predictions in files: the whole job on 3,000 rows, and time and memory for 4,000,000.

python -m tests.bench.bench_evaluation
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIZES = (3_000, 4_000_000)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for rows in SIZES:
            truth, predictions = write(Path(folder), rows)
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "jobs/evaluate.py", predictions, truth, f"{folder}/out"],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"{rows:,} rows: {seconds:.1f} s, {peak:.2f} GB at the peak")


def write(folder: Path, rows: int) -> tuple[str, str]:
    random = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(random.uniform(-0.8, 0.9, rows))), random.uniform(-179, 179, rows)
    names = [f"{number % 997}/{number:010d}.jpg" for number in range(rows)]
    truth, predictions = str(folder / "truth.parquet"), str(folder / "predictions.parquet")
    pq.write_table(pa.table({"IMG_ID": names, "LAT": lat, "LON": lon}), truth)
    answers = {"uri": [f"s3://bucket/{name}" for name in names], "lat": lat + random.normal(size=rows), "lon": lon}
    pq.write_table(pa.table(answers | {"confidence": random.uniform(size=rows)}), predictions)
    return truth, predictions


if __name__ == "__main__":
    main()
