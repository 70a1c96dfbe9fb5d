"""Photos of a table locate each other, as its user starts it. Needs no Ray."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.context.collection import Collection, Together, alone
from geoloc.context.company import NO_TRACK
from geoloc.context.corrections import corrections
from geoloc.context.locating import locate_collection
from geoloc.context.reading import CollectionTable, read_collection
from geoloc.context.reasons import reasons
from geoloc.context.together import RADII_KM
from geoloc.geo.distance import haversine_km
from geoloc.pipeline.job_options import TogetherOptions
from geoloc.schema import CONFIDENCES
from geoloc.storage import Folder

CLOCKS_FILE = "clocks.parquet"

log = logging.getLogger("geoloc")

MOVED_KM = 25
"""From its own estimate, for the log."""


def locate_table(options: TogetherOptions) -> int:
    """Read, locate, write; returns the process's exit status. Raises UsageError where something is to be put right."""
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    company = options.tracks.read(options.s3)
    table = read_collection(options.table, options.s3, company)
    for note in table.notes:
        log.warning("note: %s", note)
    together = locate_collection(table.collection)
    clocks = corrections(table.collection, together, table.photos).drop_columns("household")
    for name, rows in (("together.parquet", together_table(table, together)), (CLOCKS_FILE, clocks)):
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        folder.write(name, sink.getvalue().to_pybytes())
    for line in _lines(table.collection, together):
        log.info("%s", line)
    if clocks.num_rows:
        log.info("Clocks that differ: %s (%s)", clocks.num_rows, CLOCKS_FILE)
    if company.tracks and not any(meeting.with_chain < 0 for meeting in together.meetings):
        log.warning("note: --tracks: %s", NO_TRACK)
    log.info("Joint answers: %s/together.parquet", folder.uri)
    return 0


def together_table(table: CollectionTable, together: Together) -> pa.Table:
    """All rows in the table's order."""
    collection = table.collection
    within = dict(zip(RADII_KM, together.within.T, strict=True))
    own = alone(collection)
    columns = {
        "uri": table.uri,
        "lat": _nullable(together.lat),
        "lon": _nullable(together.lon),
        "radius_km": _nullable(together.radius_km),
        "confidence": _nullable(within[25]),
        **{name: _nullable(within[threshold]) for threshold, name in CONFIDENCES.items()},
        "because": pa.array(reasons(collection, together, table.uri), pa.string()),
        "alone_lat": _nullable(own[:, 0]),
        "alone_lon": _nullable(own[:, 1]),
        "gps_doubt": _nullable(together.doubt),
    }
    return pa.table(columns)


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _lines(collection: Collection, together: Together) -> list[str]:
    known, own = ~np.isnan(collection.known[:, 0]), alone(collection)
    km = haversine_km(own[:, 0], own[:, 1], together.lat, together.lon)
    answered = ~np.isnan(together.lat) & ~known
    lines = [
        f"{len(collection):,} photos in {len(np.unique(collection.chain)):,} chains, in the order of "
        f"{'their times' if collection.timed else 'their numbers'}: {int(known.sum()):,} with a known place, "
        f"{int((~np.isnan(own[:, 0])).sum()):,} with an estimate",
        f"Estimates within 25 km of the truth, by how far neighbours agree: {together.parameters.model.emission.near:.0%}",
        f"Answers: {int(answered.sum()):,}, of which {int((answered & (km > MOVED_KM)).sum()):,} more than {MOVED_KM} km from "
        f"the photo's own estimate, and {int((answered & np.isnan(km)).sum()):,} without one",
    ]
    nothing = int((~known & ~answered).sum())
    lines += [f"Without answer, because nothing in their chain says where: {nothing:,}"] if nothing else []
    doubtful = int((together.doubt > 0.5).sum())
    lines += [f"Known places that their neighbours contradict (gps_doubt above 0.5): {doubtful:,}"] if doubtful else []
    return lines
