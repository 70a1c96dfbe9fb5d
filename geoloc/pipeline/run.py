"""A run folder: what is to be done, what has been done, and the proof that they are the same.

``manifest/``   the photos, each with its id (geoloc.photos.manifest)
``<parts>/``    rows with those ids: what has been done. Each file is there whole or not at all, so the results are the
                checkpoint, and there is no second book-keeping to disagree with them
``run.json``    the settings that decide the results; a run with others is refused
``_SUCCESS``    JSON, last, and only if rows out = photos in; gone before anything changes
"""

import collections
import functools
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.errors import UsageError
from geoloc.photos.manifest import MANIFEST_FOLDER, Manifest
from geoloc.photos.sources import Source
from geoloc.results.parts import Each, Parts
from geoloc.settings import differences
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

SUCCESS = "_SUCCESS"
SMALL_ROWS, MANY_SMALL, LARGE_ROWS = 5_000, 100, 25_000
"""Parts of fewer rows are small; so many of them are put together, into parts of about so many rows."""
HOUSEHOLDS_FILE = "context/households.parquet"
"""Vouches for what photos said together (geoloc.pipeline.context)."""


@dataclass(frozen=True)
class Unit:
    """A stretch of the manifest that one loading task works through, leaving out what is done."""

    part: int
    start: int
    stop: int
    done: bytes
    """Packed bits, one a row of the stretch."""

    @property
    def left(self) -> int:
        """Photos."""
        return self.stop - self.start - int.from_bytes(self.done, "big").bit_count()

    def pending(self, manifest: Manifest) -> pa.Table:
        rows = manifest.slice(manifest.parts[self.part], self.start, self.stop)
        done = np.unpackbits(np.frombuffer(self.done, np.uint8), count=self.stop - self.start).astype(bool)
        return rows.filter(pa.array(~done))


class Run:
    def __init__(self, folder: Folder, parts: str, schema: pa.Schema) -> None:
        """``schema`` is that of the parts."""
        self.folder = folder
        self.manifest = Manifest(folder / MANIFEST_FOLDER)
        self.parts = Parts(folder / parts)
        self._columns = schema.names
        self.tried_again = np.zeros(0, np.int64)
        """Ids of photos that failed before, and may well fail again."""
        self._source: Source | None = None
        self._approve: Callable[[], None] | None = None
        self.parts.remove_drafts()

    @property
    def succeeded(self) -> bool:
        """Whether the folder says so of what it holds now."""
        try:
            proof = json.loads(self.folder.read(SUCCESS))
        except (FileNotFoundError, ValueError):
            return False
        return isinstance(proof, dict) and proof.items() >= self._proof().items()

    def succeed(self, counts: dict[str, int]) -> None:
        self.folder.write(SUCCESS, json.dumps(self._proof() | {"counts": counts}, indent=1).encode())

    def no_success(self) -> None:
        """Before anything changes."""
        if self._approve:
            approve, self._approve = self._approve, None
            approve()
        self.folder.delete(SUCCESS)
        if self.record().get("context"):
            self.write_record(context=None)

    def _proof(self) -> dict:
        settings = json.dumps(self.record().get("settings"), sort_keys=True, default=str)
        return {
            "generations": self.manifest.generations,
            "photos": self.manifest.rows,
            "settings": hashlib.blake2b(settings.encode(), digest_size=8).hexdigest(),
        }

    def record(self) -> dict:
        """``run.json``; empty in a new folder."""
        try:
            return json.loads(self.folder.read("run.json"))
        except FileNotFoundError:
            return {}

    def write_record(self, **entries: object) -> None:
        """Set entries of ``run.json``, leaving the others as they are."""
        self.folder.write("run.json", json.dumps(self.record() | entries, indent=1, default=str).encode())

    def renew(self, name: str, state: dict, change: Callable[[pa.Table], pa.Table], each: Each = map) -> None:
        """Bring the results that are there to a ``state`` that new ones have from the start, part by part.

        ``run.json`` says under ``name`` which state they are in, and none while that is being changed: what is cut off here
        starts again with any later run. ``change`` gives the same rows, and may have been there before.
        """
        names = self.parts.names()
        if self.record().get(name, None if names else state) != state:
            log.info("Bringing the results up to date: %s", name)
            self.no_success()
            self.folder.delete(HOUSEHOLDS_FILE)
            self.write_record(**{name: None})
            collections.deque(each(functools.partial(_renewed, self.parts, change), names), maxlen=0)
        self.write_record(**{name: state})

    def settle(self, settings: dict) -> None:
        """Record the settings that decide the results. Raises UsageError where the folder has others, naming them."""
        before = self.record().get("settings")
        if before is None or not self.manifest.generations:  # nothing has been listed with them
            self.write_record(settings=settings)
            return
        check_same(self.folder, before, settings)

    def take_up(self, source: Source, retry: Collection[str], approve: Callable[[], None] | None = None) -> None:
        """Before work: list, put aside what is damaged, forget the failures of kinds that are to be tried again; all told.

        ``approve`` is called before any of that changes the folder, if it does, and may raise. Raises UsageError where the
        source has no photos.
        """
        self._approve = approve
        log.info("Photos: %s", self.list_photos(source))
        for line in source.found.lines():
            log.info("  %s", line)
        for name in self.set_aside_damaged():
            log.warning(
                "%s/%s is damaged or not of this run: set aside; its photos are done again", self.parts.folder.uri, name
            )
        if again := self.forget_failures(retry):
            log.info("Trying %s photos again whose failure may have been put right", f"{again:,}")
        self._approve = None

    def list_photos(self, source: Source) -> str:
        """Bring the manifest up to date, unless a listed run is unfinished. Returns what was found, in words.

        Raises UsageError where the source has no photos.
        """
        self._source = source
        listed_with = json.loads(json.dumps(asdict(source.options)))
        again = self.manifest.generations > 0
        if again and not self.succeeded and self.manifest.listed_with == listed_with:
            return f"going on with {self.manifest.rows:,} listed photos"
        batches = source.list()
        first = next(batches, None)
        if first is None and not again:
            beside = "; ".join(source.found.lines())
            raise UsageError(f"SOURCE {source.uri}: no photos there{f' ({beside})' if beside else ''}")
        listing = itertools.chain([] if first is None else [first], batches)
        if again and first is None and source.tells_what_is_gone and not source.found.excluded:
            raise UsageError(
                f"SOURCE {source.uri}: none of its {self.manifest.rows:,} photos is there any more; if that is so, use a new OUTPUT, "
                "or --keep-removed to go on with what is known of them"
            )
        listed = self.manifest.append(
            listing, listed_with, self.no_success, counts=lambda uri: source.tells_what_is_gone and source.takes(uri)
        )
        self.write_record(listing=vars(source.found))
        if listed.gone:
            log.info(
                "Photos that are not there any more: %s; their rows go (--keep-removed keeps them)", f"{listed.gone:,}"
            )
        if listed.moved:
            log.info("  %s of those are there under another name, and are looked at anew", f"{listed.moved:,}")
        return f"{listed.added:,} new or changed photos" if again else f"{listed.added:,} photos"

    def _live(self) -> np.ndarray:
        """By id: whether a photo's row is to be in the results, (manifest rows,) bool."""
        live = np.ones(self.manifest.rows, bool)
        live[self.manifest.dead()] = False
        if self._source and (self._source.options.include or self._source.options.exclude):
            for part in self.manifest.parts:
                takes = [self._source.takes(uri) for uri in self.manifest.read(part, ["uri"])["uri"].to_pylist()]
                live[part.first_id : part.first_id + part.rows] &= takes
        return live

    def set_aside_damaged(self) -> list[str]:
        """Results files that are cut short, empty, or not of this run: they no longer count. Returns their names."""
        own = self.parts.each(lambda name: (name, self._is_own(name)))
        damaged = [name for name, is_own in own if not is_own]
        for name in damaged:
            self.no_success()
            self.parts.set_aside(name)
        return damaged

    def _is_own(self, name: str) -> bool:
        """By its columns, and, of one row, that the manifest has it."""
        if not self.parts.whole(name, self._columns):
            return False
        row = self.parts.read(name, ["id", "uri"] if "uri" in self._columns else ["id"]).slice(0, 1).to_pylist()
        if not row:
            return False
        part = next((p for p in self.manifest.parts if 0 <= row[0]["id"] - p.first_id < p.rows), None)
        if part is None:
            return False
        at = row[0]["id"] - part.first_id
        return "uri" not in row[0] or self.manifest.slice(part, at, at + 1)["uri"][0].as_py() == row[0]["uri"]

    def pending(self) -> tuple[list[Unit], int]:
        """The units that are left, and how many photos they hold."""
        done = self._done()
        left = int((~done).sum())
        rows = _unit_rows(left)
        stretches = (
            (number, start, min(part.rows, start + rows))
            for number, part in enumerate(self.manifest.parts)
            for start in range(0, part.rows, rows)
        )
        return self._units(stretches, done), left

    def left_of(self, units: Iterable[Unit]) -> list[Unit]:
        """What has not been written since."""
        return self._units(((unit.part, unit.start, unit.stop) for unit in units), self._done())

    def _done(self) -> np.ndarray:
        """By id: whether nothing is left to do of a photo, (manifest rows,) bool."""
        done = ~self._live()
        for _, ids in self.parts.ids():
            done[ids] = True
        return done

    def _units(self, stretches: Iterable[tuple[int, int, int]], done: np.ndarray) -> list[Unit]:
        """Of those in which something is left."""
        units = []
        for number, start, stop in stretches:
            first = self.manifest.parts[number].first_id
            flags = done[first + start : first + stop]
            if not flags.all():
                units.append(Unit(number, start, stop, np.packbits(flags).tobytes()))
        return units

    def forget_failures(self, kinds: Collection[str]) -> int:
        """Take the photos out of the results that failed, wholly or in part, for these reasons; returns how many."""
        forgotten, kinds = [np.zeros(0, np.int64)], pa.array(kinds, pa.string())
        names = self.parts.names()
        failures = self.parts.each(lambda name: self.parts.read(name, ["id", "error_kind"]))
        for name, rows in zip(names, failures, strict=True):
            again = pc.is_in(rows["error_kind"], kinds)
            if pc.any(again).as_py():
                self.no_success()
                self.parts.write(name, self.parts.read(name).filter(pc.invert(again)))
                forgotten.append(rows["id"].filter(again).to_numpy())
        self.tried_again = np.concatenate(forgotten)
        return len(self.tried_again)

    def reconcile(self) -> int:
        """Make the results hold each live photo at most once, and count the live photos that have none.

        Rows of photos that were replaced, or are gone, go, and so do second rows of a photo, which a task leaves that was run
        again because its node was cut off while writing, or a run that was paused while another took over: of those, the one
        that was written in the later turn stays.
        """
        live = self._live()
        seen = np.zeros(len(live), bool)
        for name, ids in self.parts.ids(reverse=True):
            first = np.zeros(len(ids), bool)
            first[np.unique(ids, return_index=True)[1]] = True
            keep = first & live[ids] & ~seen[ids]
            seen[ids[keep]] = True
            if not keep.all():
                self.no_success()
                self.parts.write(name, self.parts.read(name).filter(pa.array(keep)))
        return int((live & ~seen).sum())

    def compact(self, finish: Callable[[pa.Table], pa.Table]) -> int:
        """Put small parts together once there are many, as of an archive that grows day by day; how many went. ``finish``: last touch
        before a part is written. Rows stand twice for a moment: what is cut off here is put right by ``reconcile``."""
        names, counts = self.parts.names(), self.parts.each(self.parts.rows)
        small = [(name, rows) for name, rows in zip(names, counts, strict=True) if rows < SMALL_ROWS]
        if len(small) < MANY_SMALL:
            return 0
        groups, rows = [[]], 0
        for name, count in small:
            if rows + count > LARGE_ROWS:
                groups, rows = [*groups, []], 0
            groups[-1].append(name)
            rows += count
        self.no_success()
        for group in groups:
            together = self.parts.add(finish(pa.concat_tables([self.parts.read(name) for name in group])))
            for name in set(group) - {together}:
                self.parts.folder.delete(name)
        return len(small) - len(groups)


def _renewed(parts: Parts, change: Callable[[pa.Table], pa.Table], name: str) -> None:
    parts.write(name, change(parts.read(name)))


def check_same(folder: Folder, before: dict, settings: dict) -> None:
    """Raises UsageError where a run in the folder was begun with other settings, naming them."""
    if changed := differences(before, settings):
        raise UsageError(
            f"OUTPUT {folder.uri} holds a run with other settings: {'; '.join(changed)}. "
            "Use a new output folder, or the old settings to go on"
        )


def _unit_rows(photos: int) -> int:
    """Photos a loading task: few enough to share out, enough that its first request's latency does not count."""
    return int(np.clip(photos // 256, 16, max(512, photos // 20_000)))
