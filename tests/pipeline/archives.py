"""Small archives, listed; and what a run says of them."""

from pathlib import Path

import pyarrow as pa
from PIL import Image

from geoloc.photos.sources import Source
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.pipeline.run import Run
from geoloc.results.parts import Parts
from geoloc.schema import LOADED
from geoloc.storage import Folder, S3Options


def run_of(folder: Path, photos: int, widths: dict[int, int] | None = None) -> Run:
    """A run of so many little pictures in ``folder/photos``; ``widths`` of those that are not 20 pixels wide, by their ids."""
    (folder / "photos").mkdir()
    for number in range(photos):
        width = (widths or {}).get(number, 20)
        Image.new("RGB", (width, 20)).save(folder / "photos" / f"{number:02d}.png")
    run = Run(Folder(str(folder / "run")), "parts", LOADED)
    run.list_photos(Source(str(folder / "photos"), S3Options()))
    return run


def rows_of(options: ArchiveOptions) -> list[dict]:
    return pa.concat_tables(Parts(Folder(options.output) / "geotags").tables()).to_pylist()
