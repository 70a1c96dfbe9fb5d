"""Confidences on held-out photos of the toy planet: calibration error and coverage, before and after calibration.

python -m tests.bench.bench_calibration
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet

REFERENCES, PHOTOS = 2_000, 4_000
SHOWN = ["run", "n", "missing", "coverage", *(f"ece_{t}km" for t in (1, 25, 200, 750, 2500))]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, planet = Path(folder), Planet()
        write_references(root / "references", planet, REFERENCES)
        for name, seed in (("known", 2), ("held-out", 3)):
            write_archive(root / name, root / f"{name}.csv", planet, PHOTOS, seed)
        job("build_index.py", root / "references", root / "index", "--encoder", "lite")
        for chooser in ("top1", "density"):
            locate = ["--recipe", "lite", "--index", root / "index", "--relocate", "--chooser", chooser]
            known, before, after = (root / f"{chooser}-{name}" for name in ("known", "before", "after"))
            job("geotag_archive.py", root / "known.csv", known, *locate)
            job("calibrate.py", known)
            job("geotag_archive.py", root / "held-out.csv", before, *locate)
            job("geotag_archive.py", root / "held-out.csv", after, *locate, "--calibration", known)
            job("evaluate.py", before, after, root / "held-out.csv", root / "evaluation")
            with (root / "evaluation" / "table.csv").open() as file:
                for row in csv.DictReader(file):
                    print("  ".join(f"{name} {row[name]}" for name in SHOWN if row.get(name)))


def job(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, f"jobs/{script}", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
