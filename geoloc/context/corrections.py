"""Clocks that were found to differ, as rows of CLOCKS."""

import numpy as np
import pyarrow as pa

from geoloc.context.collection import Collection, Together
from geoloc.context.company import Meeting
from geoloc.schema import CLOCKS


def corrections(collection: Collection, together: Together, rows: pa.Table) -> pa.Table:
    """Of meetings by which a clock is found to differ, from UTC where that is known; ``rows`` of geoloc.context.archive, a photo each."""
    told = [one for one in together.meetings if one.spell.told and not one.again]
    by_utc = {one.chain for one in told if one.from_utc}
    told = [one for one in told if one.from_utc or one.chain not in by_utc]
    told = [one for one in told if abs(one.spell.offset) > one.spell.give_or_take]
    first = {}
    for row, chain in enumerate(collection.chain.tolist()):
        first.setdefault(chain, row)
    return pa.Table.from_pylist([_row(one, collection, first, rows) for one in told], CLOCKS)


def _row(one: Meeting, collection: Collection, first: dict[int, int], rows: pa.Table) -> dict:
    photo = {name: rows[name][first[one.chain]].as_py() for name in ("camera", "camera_serial")}
    mine = np.flatnonzero(collection.chain == one.chain)
    at = collection.position[mine]
    mine = mine[(at >= one.spell.start) & (at <= one.spell.stop)]
    shown = [time for time in rows["taken_at"].take(pa.array(mine)).to_pylist() if time]
    other = "tracks" if one.with_chain < 0 else rows["camera"][first[one.with_chain]].as_py() or "another camera"
    return photo | {
        "household": rows["household"][first[one.chain]].as_py() if "household" in rows.column_names else None,
        "seen_with": other,
        "first": min(shown, default=None),
        "last": max(shown, default=None),
        "photos": len(mine),
        "ahead_minutes": one.spell.offset,
        "of_utc": one.from_utc,
        "give_or_take_minutes": one.spell.give_or_take,
        "probability": one.spell.probability,
        "moments": one.spell.moments,
    }
