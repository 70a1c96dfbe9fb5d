"""The last stage of the archive job: photos that have their own answers locate each other."""

import logging
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from geoloc.context.archive import COLUMNS, numbered, timed
from geoloc.context.collection import Together, locate_collection
from geoloc.context.defaults import for_file_numbers
from geoloc.context.reasons import reasons
from geoloc.context.together import RADII_KM
from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.geo.places import places
from geoloc.pipeline.job_options import Context
from geoloc.pipeline.run import Run
from geoloc.results.geoparquet import with_geometry
from geoloc.schema import CONFIDENCES, JOINT, RESULT

log = logging.getLogger("geoloc")

VERSION = 1
"""Of the joint answers: results of another are told anew."""


def locate_each_other(run: Run, confidence: Confidence, context: Context) -> None:
    """Bring the joint answers up to date with the photos' own: all of them, from their candidates, whatever was there before; only
    files in which something changes are written. ``run.json`` says under ``context`` how they were told, and nothing from when
    anything in the results changes (Run.no_success): what is cut off is done again by any later run."""
    settings = {"context": context, "version": VERSION, "confidence": confidence.state()}
    if run.record().get("context") == settings:
        return
    joint = _joint(run, confidence) if context != "off" else {}
    changed = 0
    for name in run.parts.names():
        before = run.parts.read(name)
        after = with_geometry(_told(_alone(before, confidence), joint, confidence))
        if not after.equals(before):
            run.no_success()
            run.parts.write(name, after)
            changed += 1
    log.info("Files of results that neighbours changed: %s of %s", changed, len(run.parts.names()))
    run.write_record(context=settings)


def _joint(run: Run, confidence: Confidence) -> dict[str, np.ndarray]:
    """By column, with the ids of photos that others have a say on, in order."""
    rows = pa.concat_tables(
        [pa.table({name: pa.nulls(0, RESULT.field(name).type) for name in COLUMNS}), *run.parts.tables(COLUMNS)]
    )
    found: list[dict] = []
    for collections, model in ((timed, None), (numbered, for_file_numbers())):
        used, collection = collections(rows, confidence.scale)
        if not len(used):
            continue
        together = locate_collection(collection, model, _on_the_cluster)
        heard = np.flatnonzero(together.heard & together.answered)
        known = ~np.isnan(collection.known[heard, 0])
        _tell(len(used), collection.timed, len(np.unique(collection.chain)), int((~known).sum()), together)
        uri = rows["uri"].take(pa.array(used))
        within = dict(zip(RADII_KM, together.within[heard].T, strict=True))
        found.append(
            {
                "id": rows["id"].to_numpy()[used][heard],
                "estimate_lat": together.lat[heard],
                "estimate_lon": together.lon[heard],
                "radius_km": together.radius_km[heard],
                "confidence": within[25],
                **{name: within[threshold] for threshold, name in CONFIDENCES.items()},
                "gps_doubt": together.doubt[heard],
                "because": np.array(reasons(collection, together, uri, heard), object),
            }
        )
    if not found:
        return {}
    columns = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    order = np.argsort(columns["id"])
    return {name: values[order] for name, values in columns.items()}


def _tell(photos: int, by_time: bool, chains: int, answered: int, together: Together) -> None:
    log.info(
        "Photos with %s: %s in %s chains; estimates within 25 km of the truth, by how far neighbours agree: %.0f %%; "
        "neighbours have a say on %s",
        "a time" if by_time else "a number",
        f"{photos:,}",
        f"{chains:,}",
        100 * together.model.emission.near,
        f"{answered:,}",
    )


def _on_the_cluster(function: Callable, evidences: Iterable) -> Iterator:
    """``map`` over pieces of the archive: here where there is one, else by Ray's tasks."""
    evidences = list(evidences)
    if len(evidences) < 2:
        yield from map(function, evidences)
        return
    import ray

    from geoloc.pipeline.cluster import connect

    connect()
    task = ray.remote(num_cpus=1)(function.func)
    waiting = [task.remote(evidence, **function.keywords) for evidence in evidences]
    for one in waiting:
        yield ray.get(one)


def _alone(table: pa.Table, confidence: Confidence) -> pa.Table:
    """As before any photo had a say on another."""
    told = table["because"].null_count < table.num_rows
    for name in JOINT:
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.nulls(table.num_rows, field.type))
    return confidence.renew(table) if told else table


def _told(table: pa.Table, joint: dict[str, np.ndarray], confidence: Confidence) -> pa.Table:
    """Rows of RESULT with the joint answers, by their ids."""
    ids = table["id"].to_numpy()
    if not joint or not len(joint["id"]):
        return table
    at = np.minimum(np.searchsorted(joint["id"], ids), len(joint["id"]) - 1)
    said = joint["id"][at] == ids
    status = np.array(table["status"].to_pylist(), object)
    moved, kept = said & np.isin(status, ANSWERED), said & (status == "kept")
    new = {name: table[name].to_numpy(zero_copy_only=False).copy() for name in _CHANGED}
    for name, before in _ALONE.items():
        new[name] = np.where(moved, table[before].to_numpy(zero_copy_only=False), np.nan)
    for name in ("estimate_lat", "estimate_lon", "radius_km", "confidence", *CONFIDENCES.values()):
        new[name] = np.where(moved, joint[name][at], new[name])
    status[moved] = np.where(
        confidence.is_sure({name: joint[name][at[moved]] for name in CONFIDENCES.values()}), "located", "uncertain"
    )
    answered = moved & (status == "located")
    for axis in ("lat", "lon"):
        new[axis] = np.where(answered, new[f"estimate_{axis}"], np.where(moved, np.nan, new[axis]))
    new |= {"status": status, "because": np.where(moved, joint["because"][at], None)}
    new["gps_doubt"] = np.where(kept, joint["gps_doubt"][at], np.nan)
    columns = {name: table[name] for name in table.column_names}
    columns |= {name: pa.array(values, RESULT.field(name).type, from_pandas=True) for name, values in new.items()}
    columns["place"] = places().lookup(new["lat"], new["lon"])
    return pa.table(columns)


_ALONE = {
    "alone_lat": "estimate_lat",
    "alone_lon": "estimate_lon",
    "alone_radius_km": "radius_km",
    "alone_confidence": "confidence",
}
_CHANGED = ("lat", "lon", "estimate_lat", "estimate_lon", "radius_km", "confidence", *CONFIDENCES.values())
