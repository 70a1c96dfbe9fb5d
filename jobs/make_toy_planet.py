"""Write photos of a made-up planet: references/ with GPS, archive/ to be geotagged, and truth.csv about it.

python jobs/make_toy_planet.py demo/planet --references 1000 --photos 300
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.planet import Planet


@dataclass(frozen=True)
class ToyOptions:
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder to write to."""
    references: int = 1000
    """Photos in references/, all with GPS."""
    photos: int = 300
    """Files in archive/: some have GPS, some are broken."""
    seed: int = 7
    """Of the planet: another seed, another world."""


def make_toy_planet(options: ToyOptions) -> int:
    planet = Planet(options.seed)
    write_references(options.output / "references", planet, options.references)
    write_archive(options.output / "archive", options.output / "truth.csv", planet, options.photos)
    print(f"{options.references} references and {options.photos} photos in {options.output}")
    return 0


if __name__ == "__main__":
    run_job(lambda: make_toy_planet(parse(ToyOptions, "Write photos of a made-up planet.")))
