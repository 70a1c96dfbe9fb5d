"""The last stage of the archive job: photos that have their own answers locate each other.

Whole households (geoloc.context.households) are worked on at once: the rows of the results' files are dealt out to them, and
their joint answers dealt back to the files. An archive of up to AT_ONCE photos is worked on here; a larger one by Ray's
tasks, none of which holds more than about so many photos, but for a longer chain.
"""

import hashlib
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.context.archive import COLUMNS, ORDER, compact, numbered, timed
from geoloc.context.collection import Collection, Together
from geoloc.context.company import NO_TRACK, CompanyOptions
from geoloc.context.corrections import corrections
from geoloc.context.defaults import for_file_numbers
from geoloc.context.households import HOUSEHOLDS, Households, chain_of, fingerprints, members
from geoloc.context.learning import learned
from geoloc.context.locating import locate_collection
from geoloc.context.parameters import of_json, to_json
from geoloc.context.reasons import reasons
from geoloc.context.together import RADII_KM
from geoloc.estimate.confidence import Confidence
from geoloc.pipeline.job_options import Context
from geoloc.pipeline.progress import Progress
from geoloc.pipeline.run import HOUSEHOLDS_FILE, Run
from geoloc.pipeline.tasks import AT_ONCE, Cluster, here, value
from geoloc.results.geoparquet import with_geometry
from geoloc.results.joint import TOLD, alone, rows_of, up_to_date
from geoloc.results.parts import Parts
from geoloc.schema import CLOCKS, CLOCKS_FILE, CONFIDENCES, RESULT
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

VERSION = 2
"""Of the joint answers: results of another are told anew."""
LEARNED_OF = 200_000
"""Photos, or one household's if those are more."""
GROWTH = 1.25
"""What was learned of an archive serves until it has grown by this."""
STATE_FILE = "context/state.json"
"""In the run's folder: what was learned. HOUSEHOLDS_FILE: a fingerprint of each household whose answers are in the results."""


def locate_each_other(run: Run, confidence: Confidence, context: Context, company: CompanyOptions) -> None:
    """Bring the joint answers up to date with the photos' own: of households of which anything has changed, from their candidates,
    whatever was there before; only files in which something changes are written. ``run.json`` says under ``context`` how they
    were told, and nothing from when anything in the results changes (Run.no_success): what is cut off is done again by any
    later run."""
    settings = {"context": context, "version": VERSION, "confidence": confidence.state(), **company.state()}
    if run.record().get("context") == settings:
        return
    run.no_success()
    names, memory = run.parts.names(), Memory(run.folder)
    if context == "off":
        memory.forget()
        changed = sum(_take_back(run.parts, confidence, name) for name in names)
    else:
        changed = JointStage(run.parts, confidence, company, memory, run.manifest.rows, settings).done(names)
    log.info("Files of results that neighbours changed: %s of %s", changed, len(names))
    run.write_record(context=settings)


@dataclass(frozen=True)
class Memory:
    """What is known of a run's joint answers."""

    folder: Folder

    def forget(self) -> None:
        for name in (HOUSEHOLDS_FILE, STATE_FILE, CLOCKS_FILE):
            self.folder.delete(name)

    def state(self) -> dict:
        try:
            return json.loads(self.folder.read(STATE_FILE))
        except FileNotFoundError:
            return {}

    def table(self, name: str, schema: pa.Schema) -> pa.Table:
        try:
            return pq.read_table(io.BytesIO(self.folder.read(name)))
        except FileNotFoundError:
            return schema.empty_table()

    def write(self, state: dict, clocks: pa.Table, households: pa.Table) -> None:
        """The households last: they vouch for the rest."""
        self.folder.write(STATE_FILE, json.dumps(state).encode())
        for name, table in ((CLOCKS_FILE, clocks), (HOUSEHOLDS_FILE, households)):
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            self.folder.write(name, sink.getvalue().to_pybytes())


class JointStage:
    """Of one run, from its files and back."""

    def __init__(
        self,
        parts: Parts,
        confidence: Confidence,
        company: CompanyOptions,
        memory: Memory,
        photos: int,
        settings: dict,
    ) -> None:
        self._memory, self._photos, self._settings = memory, photos, settings
        self._parts, self._confidence, self._company = parts, confidence, company

    def done(self, names: list[str]) -> int:
        """The number of files that were written."""
        groups = [list(group) for group in np.array_split(names, min(len(names), -(-self._photos // AT_ONCE)) or 1)]
        run = here if len(groups) == 1 else Cluster()
        counts = [run(_members, self._parts, group) for group in groups]
        households = Households.of(pa.concat_tables(map(value, counts)), AT_ONCE)
        if households.buckets > 1 and run is here:
            run = Cluster()
        dealt = [run(_deal, self._parts, group, households, returns=households.buckets) for group in groups]
        state = self._state(run, [one[0] for one in dealt])
        salt = hashlib.blake2b(json.dumps([self._settings, state], sort_keys=True, default=str).encode()).hexdigest()
        before = self._memory.table(HOUSEHOLDS_FILE, HOUSEHOLDS)
        located = [
            run(
                _locate,
                (self._company, self._confidence.scale, state["learned"], salt, before, len(groups)),
                *(one[bucket] for one in dealt),
                returns=len(groups) + 1,
            )
            for bucket in range(households.buckets)
        ]
        sums = self._summed(located)
        changed = [
            run(_change, self._parts, self._confidence, group, *(one[number] for one in located))
            for number, group in enumerate(groups)
        ]
        written = sum(map(value, changed))
        clocks = self._memory.table(CLOCKS_FILE, CLOCKS)
        clocks = clocks.filter(pc.is_in(clocks["household"], pc.unique(sums.same["household"])))
        self._memory.write(state, pa.concat_tables([clocks, sums.clocks]), pa.concat_tables([sums.same, sums.new]))
        return written

    def _state(self, run: Callable, first: list) -> dict:
        """What is learned of the first households, which are as good as drawn: as before, unless the archive has grown."""
        settings = json.loads(json.dumps(self._settings, default=str))
        state = self._memory.state()
        if state.get("settings") != settings or not state["photos"] <= self._photos <= GROWTH * state["photos"]:
            told = value(run(_learn, self._company, self._confidence.scale, *first))
            state = {"settings": settings, "photos": self._photos, "learned": told}
        return state

    def _summed(self, located: list[list]) -> "_Sums":
        progress, sums = Progress(self._photos), []
        for one in located:
            sums.append(value(one[-1]))
            if len(located) > 1:
                progress.add({"looked at": sums[-1].photos})
        progress.close()
        total = _Sums.joined(sums)
        for line in total.lines():
            log.info("%s", line)
        if self._company.tracks and not total.same.num_rows and not total.told["time"]["tracked"]:
            log.warning("note: --tracks: %s", NO_TRACK)
        for camera in sorted(self._company.clock_offsets.keys() - total.cameras):
            log.warning("note: --clock-offset %s: no photo is of a camera of this name", camera)
        return total


@dataclass(frozen=True)
class _Sums:
    """Of some households."""

    photos: int
    same: pa.Table
    """HOUSEHOLDS of which nothing has changed."""
    new: pa.Table
    clocks: pa.Table
    told: dict[str, dict[str, float]]
    """Of the others' photos with a time, and with a number: photos, chains, those that neighbours have a say on, in company of
    others, and of tracks."""
    cameras: frozenset[str]
    """Whose clocks somebody has told."""

    @classmethod
    def joined(cls, sums: list["_Sums"]) -> "_Sums":
        told = {
            kind: {name: sum(one.told[kind][name] for one in sums) for name in one_kind}
            for kind, one_kind in sums[0].told.items()
        }
        tables = (pa.concat_tables([getattr(one, name) for one in sums]) for name in ("same", "new", "clocks"))
        cameras = frozenset().union(*(one.cameras for one in sums))
        return cls(sum(one.photos for one in sums), *tables, told, cameras)

    def lines(self) -> list[str]:
        lines = [
            f"Photos with a {kind}: {one['photos']:,} in {one['chains']:,} chains; estimates within 25 km of the truth, by how far "
            f"neighbours agree: {one['near'] / one['photos']:.0%}; neighbours have a say on {one['heard']:,}"
            for kind, one in self.told.items()
            if one["photos"]
        ]
        if met := self.told["time"]["met"]:
            lines.append(f"Chains that were in company of others, or of tracks, at times: {met:,}")
        if self.same.num_rows:
            lines.append(
                f"Households of which nothing has changed: {self.same.num_rows:,}; of others: {self.new.num_rows:,}"
            )
        if self.clocks.num_rows:
            lines.append(f"Clocks that differ: {self.clocks.num_rows:,} ({CLOCKS_FILE}, and in the report)")
        return lines


def _members(parts: Parts, names: list[str]) -> pa.Table:
    counts = [members(parts.read(name, ORDER)) for name in names]
    empty = pa.schema({"chain": pa.uint64(), "folder": pa.uint64(), "photos": pa.int64()}).empty_table()
    return pa.concat_tables([empty, *counts])


def _deal(parts: Parts, names: list[str], households: Households) -> list[pa.Table]:
    """The rows of some files by buckets, compact, with their households."""
    names_read = dict.fromkeys(name.split(".")[0] for name in COLUMNS)
    empty = pa.schema([RESULT.field(name) for name in names_read]).empty_table()
    dealt: list[list[pa.Table]] = [[] for _ in range(households.buckets)]
    for rows in (empty, *(parts.read(name, COLUMNS) for name in names)):
        rows = compact(rows)
        household, bucket = households.at(chain_of(rows)) if rows.num_rows else np.zeros((2, 0), np.uint64)
        rows = rows.append_column("household", pa.array(household, pa.uint64()))
        for number, tables in enumerate(dealt):
            tables.append(rows.filter(pa.array(bucket == number)))
    return [pa.concat_tables(tables) for tables in dealt]


_KINDS = {"time": None, "number": for_file_numbers}
"""What photos are in the order of, and the model of it."""


def _collections(rows: pa.Table, company: CompanyOptions, scale: float) -> dict[str, tuple[np.ndarray, Collection]]:
    return {"time": timed(rows, scale, company), "number": numbered(rows, scale)}


def _learn(company: CompanyOptions, scale: float, *tables: pa.Table) -> dict[str, str]:
    found = {}
    rows = pa.concat_tables(tables).sort_by([("household", "ascending"), ("id", "ascending")])
    households = rows["household"].to_numpy()
    rows = rows.filter(pa.array(households <= households[:LEARNED_OF][-1])) if len(households) else rows
    for kind, (_, collection) in _collections(rows, company, scale).items():
        model = _KINDS[kind]
        found[kind] = to_json(learned(collection, model and model()))
    return found


def _locate(shared: tuple, *tables: pa.Table) -> list:
    """The rows of some households, from each group of files: TOLD for each group, and _Sums."""
    company, scale, parameters, salt, before, groups = shared
    rows = pa.concat_tables(tables)
    group = np.repeat(np.arange(groups), [table.num_rows for table in tables])
    now = fingerprints(rows, salt)
    same = _unchanged(before, now)
    is_same = np.isin(rows["household"].to_numpy(), now["household"].to_numpy()[same])
    told = [
        pa.table({"id": rows["id"].filter(pa.array(is_same))}).append_column(
            "same", pa.array(np.ones(is_same.sum(), bool))
        )
    ]
    cameras = frozenset(company.clock_offsets) & frozenset(pc.unique(rows["camera"]).to_pylist())
    ids, changed = rows["id"].to_numpy(), rows.filter(pa.array(~is_same))
    sums, clocks = {}, [CLOCKS.empty_table()]
    for kind, (used, collection) in _collections(changed, company, scale).items():
        one = of_json(parameters[kind])
        sums[kind] = dict.fromkeys(("photos", "chains", "near", "heard", "met", "tracked"), 0)
        if not len(used):
            continue
        together = locate_collection(collection, one)
        heard = np.flatnonzero(together.heard & together.answered)
        photos = changed.take(pa.array(used))
        told.append(_told(collection, together, heard, photos))
        clocks.append(corrections(collection, together, photos))
        sums[kind] = {
            "photos": len(used),
            "chains": len(np.unique(collection.chain)),
            "near": one.model.emission.near * len(used),
            "heard": int(np.isnan(collection.known[heard, 0]).sum()),
            "met": len({meeting.chain for meeting in together.meetings}),
            "tracked": len({meeting.chain for meeting in together.meetings if meeting.with_chain < 0}),
        }
    everything = pa.concat_tables([TOLD.empty_table(), *told], promote_options="default")
    at = group[np.argsort(ids)][np.searchsorted(np.sort(ids), everything["id"].to_numpy())]
    new = _with_told(now.filter(pa.array(~same)), rows, everything)
    summed = _Sums(rows.num_rows, now.filter(pa.array(same)), new, pa.concat_tables(clocks), sums, cameras)
    return [*(everything.filter(pa.array(at == number)) for number in range(groups)), summed]


def _unchanged(before: pa.Table, now: pa.Table) -> np.ndarray:
    """(h,) households that are as they were, and whose rows are as they were written then."""
    keys = [(before[name].to_numpy(), now[name].to_numpy()) for name in HOUSEHOLDS.names]
    at, there = rows_of(keys[0][1], np.sort(keys[0][0]))
    order = np.argsort(keys[0][0])
    return there & np.all([was[order][at] == value for was, value in keys[1:]], axis=0) if len(order) else there


def _with_told(households: pa.Table, rows: pa.Table, told: pa.Table) -> pa.Table:
    """With the number of their rows that are told of neighbours now."""
    changed = told.filter(pc.invert(told["same"]))
    ids = changed.filter(pc.or_(changed["because"].is_valid(), pc.is_finite(changed["gps_doubt"]).fill_null(False)))[
        "id"
    ]
    of = rows["household"].filter(pc.is_in(rows["id"], ids)).to_numpy()
    keys = households["household"].to_numpy()
    counts = np.bincount(np.searchsorted(keys, of), minlength=len(keys)) if len(keys) else np.zeros(0, np.int64)
    return households.set_column(2, "told", pa.array(counts, pa.int64()))


def _told(collection: Collection, together: Together, heard: np.ndarray, photos: pa.Table) -> pa.Table:
    within = dict(zip(RADII_KM, together.within[heard].T, strict=True))
    columns = {
        "id": photos["id"].to_numpy()[heard],
        "same": np.zeros(len(heard), bool),
        "estimate_lat": together.lat[heard],
        "estimate_lon": together.lon[heard],
        "radius_km": together.radius_km[heard],
        "confidence": within[25],
        "gps_doubt": together.doubt[heard],
        **{name: within[threshold] for threshold, name in CONFIDENCES.items()},
        "because": pa.array(reasons(collection, together, photos["uri"], heard), pa.string()),
    }
    return pa.table(columns).select(TOLD.names).cast(TOLD)


def _change(parts: Parts, confidence: Confidence, names: list[str], *told: pa.Table) -> int:
    """Bring files up to date with what households said of their photos; the number of those that were written."""
    joint = pa.concat_tables(told).sort_by("id")
    written = 0
    for name in names:
        before = parts.read(name)
        after = up_to_date(before, joint, confidence)
        if not after.equals(before):
            parts.write(name, after)
            written += 1
    return written


def _take_back(parts: Parts, confidence: Confidence, name: str) -> bool:
    before = parts.read(name)
    after = with_geometry(alone(before, confidence))
    if after.equals(before):
        return False
    parts.write(name, after)
    return True
