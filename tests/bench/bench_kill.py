"""Drivers killed at random points: rows out, duplicates, and the wall time that a kill costs.

python -m tests.bench.bench_kill
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from geoloc.results.parts import Parts
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet

PHOTOS = 1500


def main(seed: int = 0) -> None:
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        planet = Planet()
        write_references(root / "references", planet, 300)
        write_archive(root / "archive", root / "truth.csv", planet, PHOTOS)
        subprocess.run(
            [sys.executable, "jobs/build_index.py", root / "references", root / "index", "--encoder", "lite"],
            check=True,
        )
        whole, _ = run(root, "whole")
        print(f"uninterrupted: {whole:.0f} s")
        for number in range(3):
            spent, rows_at_kill = run(root, f"killed-{number}", kill_after_rows=draw.randrange(1, PHOTOS - 200))
            again, _ = run(root, f"killed-{number}")
            ids = np.concatenate([ids for _, ids in Parts(Folder(str(root / f"killed-{number}" / "geotags"))).ids()])
            print(
                f"killed after {spent:.0f} s with {rows_at_kill} rows written, resumed in {again:.0f} s: {len(ids)} rows, "
                f"{len(ids) - len(np.unique(ids))} duplicates, {PHOTOS - len(np.unique(ids))} missing; "
                f"lost {spent + again - whole:.0f} s"
            )


def run(root: Path, name: str, kill_after_rows: int | None = None) -> tuple[float, int]:
    """Seconds until the job ended or was killed, and the rows that were written then."""
    start = time.monotonic()
    command = [sys.executable, "jobs/geotag_archive.py", root / "archive", root / name, "--recipe", "lite"]
    job = subprocess.Popen([*command, "--index", root / "index"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = Parts(Folder(str(root / name / "geotags")))
    while job.poll() is None:
        rows = sum(len(ids) for _, ids in parts.ids())
        if kill_after_rows is not None and rows >= kill_after_rows:
            os.kill(job.pid, signal.SIGKILL)
            job.wait()
            return time.monotonic() - start, rows
        time.sleep(0.3)
    assert job.returncode == 0
    return time.monotonic() - start, sum(len(ids) for _, ids in parts.ids())


if __name__ == "__main__":
    main()
