"""A run folder: what is to be done, what has been done, and the proof that they are the same.

``manifest/``   the photos, each with its id (geoloc.photos.manifest)
``<parts>/``    rows with those ids: what has been done. Each file is there whole or not at all, so the results are the
                checkpoint, and there is no second book-keeping to disagree with them
``run.json``    the settings that decide the results; a run with others is refused
``_SUCCESS``    last, and only if rows out = photos in
"""

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.errors import UsageError
from geoloc.photos.manifest import Manifest
from geoloc.photos.sources import Source
from geoloc.results.parts import Parts
from geoloc.storage import Folder

SUCCESS = "_SUCCESS"
PASSING = ["network"]
"""Kinds of failure that another run may not meet again."""


@dataclass(frozen=True)
class Unit:
    """A stretch of the manifest that one loading task works through, leaving out what is done."""

    part: int
    start: int
    stop: int
    done: bytes
    """Packed bits, one a row of the stretch."""

    def pending(self, manifest: Manifest) -> pa.Table:
        rows = manifest.slice(manifest.parts[self.part], self.start, self.stop)
        done = np.unpackbits(np.frombuffer(self.done, np.uint8), count=self.stop - self.start).astype(bool)
        return rows.filter(pa.array(~done))


class Run:
    def __init__(self, folder: Folder, parts: str) -> None:
        self.folder = folder
        self.manifest = Manifest(folder / "manifest")
        self.parts = Parts(folder / parts)
        self.parts.remove_drafts()

    @property
    def succeeded(self) -> bool:
        return self.folder.exists(SUCCESS)

    def record(self) -> dict:
        """``run.json``; empty in a new folder."""
        try:
            return json.loads(self.folder.read("run.json"))
        except FileNotFoundError:
            return {}

    def write_record(self, **entries: object) -> None:
        """Set entries of ``run.json``, leaving the others as they are."""
        self.folder.write("run.json", json.dumps(self.record() | entries, indent=1, default=str).encode())

    def settle(self, settings: dict) -> None:
        """Record the settings that decide the results. Raises UsageError where the folder has others, naming them."""
        before = self.record().get("settings")
        if before is None or not self.manifest.generations:  # nothing has been listed with them
            self.write_record(settings=settings)
            return
        check_same(self.folder, before, settings)

    def list_photos(self, source: Source) -> str:
        """Bring the manifest up to date, unless a listed run is unfinished. Returns what was found, in words.

        Raises UsageError where the source has no photos.
        """
        if self.manifest.generations and not self.succeeded:
            return f"going on with {self.manifest.rows:,} listed photos"
        again = self.manifest.generations > 0
        batches = source.list()
        first = next(batches, None)
        if first is None:
            raise UsageError(f"SOURCE {source.uri}: no photos there ({source.left_out:,} files of other types)")
        added = self.manifest.append(itertools.chain([first], batches))
        if added and again:
            self.folder.delete(SUCCESS)
        notes = [f"{added:,} new or changed photos" if again else f"{added:,} photos"]
        notes += [f"{source.left_out:,} files of other types left out"] if source.left_out else []
        notes += [f"{source.duplicates:,} duplicate rows left out"] if source.duplicates else []
        return ", ".join(notes)

    def _live(self) -> np.ndarray:
        """By id: whether a photo's row is to be in the results, (manifest rows,) bool."""
        live = np.ones(self.manifest.rows, bool)
        live[self.manifest.replaced()] = False
        return live

    def pending(self) -> tuple[list[Unit], int]:
        """The units that are left, and how many photos they hold."""
        done = ~self._live()
        for ids in self.parts.ids().values():
            done[ids] = True
        units, unit_rows = [], _unit_rows(int((~done).sum()))
        for number, part in enumerate(self.manifest.parts):
            flags = done[part.first_id : part.first_id + part.rows]
            for start in range(0, part.rows, unit_rows):
                stretch = flags[start : start + unit_rows]
                if not stretch.all():
                    units.append(Unit(number, start, start + len(stretch), np.packbits(stretch).tobytes()))
        return units, int((~done).sum())

    def forget_passing_failures(self) -> int:
        """Take the photos out of the results that failed for reasons that may have passed; returns how many."""
        forgotten = 0
        for name in self.parts.names():
            passing = pc.is_in(self.parts.read(name, ["error_kind"])["error_kind"], pa.array(PASSING))
            count = pc.sum(passing).as_py()
            if count:
                self.folder.delete(SUCCESS)
                self.parts.write(name, self.parts.read(name).filter(pc.invert(passing)))
                forgotten += count
        return forgotten

    def reconcile(self) -> int:
        """Make the results hold each live photo at most once, and count the live photos that have none.

        Rows of replaced photos go, and so do second rows of a photo, which a task leaves that was run again because
        its node was cut off while writing.
        """
        live = self._live()
        seen = np.zeros(len(live), bool)
        for name, ids in self.parts.ids().items():
            first = np.zeros(len(ids), bool)
            first[np.unique(ids, return_index=True)[1]] = True
            keep = first & live[ids] & ~seen[ids]
            seen[ids[keep]] = True
            if not keep.all():
                self.parts.write(name, self.parts.read(name).filter(pa.array(keep)))
        return int((live & ~seen).sum())


def check_same(folder: Folder, before: dict, settings: dict) -> None:
    """Raises UsageError where a run in the folder was begun with other settings, naming them."""
    changed = [
        f"{name} was {before.get(name)!r}, is now {settings.get(name)!r}"
        for name in sorted(before.keys() | settings.keys())
        if before.get(name) != settings.get(name)
    ]
    if changed:
        raise UsageError(
            f"OUTPUT {folder.uri} holds a run with other settings: {'; '.join(changed)}. "
            "Use a new output folder, or the old settings to go on"
        )


def _unit_rows(photos: int) -> int:
    """Photos a loading task: few enough to share out, enough that its first request's latency does not count."""
    return int(np.clip(photos // 256, 16, max(512, photos // 20_000)))
