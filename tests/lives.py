"""The life of a run without a cluster, killed at every kind of moment on stores of every kind of mood, and read by a stranger.

A life lists photos, writes parts as tasks do (out of order, some twice), changes the archive, proves, puts small parts together
and says that it succeeded. Whoever is killed is followed by another who goes on.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError, ConnectionClosedError
from fsspec.exceptions import FSTimeoutError
from s3fs.errors import translate_boto_error

from geoloc.pipeline import lane, run
from geoloc.pipeline.lane import _Writer
from geoloc.pipeline.run import Run
from geoloc.schema import LISTING
from geoloc.storage import Folder, S3Options

SCHEMA = pa.schema({"id": pa.int64(), "uri": pa.string(), "status": pa.string(), "error_kind": pa.string()})
POINTS = {
    "a part, before": ("write", "part-", "before"),
    "a part, half written": ("write", "part-", "amid"),
    "a part, after, before its receipt": ("write", "part-", "after"),
    "in the listing, before it counts": ("create", "0000.json", "before"),
    "in the listing, after": ("create", "0000.json", "after"),
    "in a second listing, before it counts": ("create", "0001.json", "before"),
    "a part goes, before": ("delete", "part-", "before"),
    "a part goes, after": ("delete", "part-", "after"),
    "the proof, before": ("write", "_SUCCESS", "before"),
    "the proof, after": ("write", "_SUCCESS", "after"),
    "the record, half written": ("write", "run.json", "amid"),
}
"""The operation, what the file's name begins with, and when."""


class KilledError(BaseException):
    """The process is gone."""


def _refused(code: str) -> Exception:
    return translate_boto_error(
        ClientError({"Error": {"Code": code, "Message": "Please reduce your request rate."}}, "Put")
    )


MOODS = {
    "well": None,
    "503": lambda: _refused("ServiceUnavailable"),
    "reset": lambda: ConnectionClosedError(endpoint_url="the store"),
    "hung": FSTimeoutError,
    "disk slow": lambda: OSError(5, "Input/output error"),
}


@dataclass
class Fate:
    """At which occasion of a point whoever is alive is killed, and how often the store fails before it works again."""

    point: str
    occasion: int
    mood: str = "well"
    failures: int = 0
    met: int = 0
    killed: bool = False

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        operation, begins, when = POINTS[self.point]
        originals = {name: getattr(Folder, name) for name in ("write", "create", "delete")}

        def change(name: str):
            def changed(folder: Folder, file: str, *rest: object, **options: object) -> object:
                if self.failures and file.startswith("part-") and name == "write":
                    self.failures -= 1
                    raise MOODS[self.mood]()
                here = name == operation and file.startswith(begins) and not self.killed
                self.met += here
                dies = here and self.met == self.occasion
                if dies and when == "before":
                    self._die()
                if dies and when == "amid":
                    if folder.is_local:
                        Path(folder.path()).mkdir(parents=True, exist_ok=True)
                        Path(folder.path(f".{file}.1-1.tmp")).write_bytes(rest[0][: len(rest[0]) // 2])
                    self._die()
                found = originals[name](folder, file, *rest, **options)
                if dies:
                    self._die()
                return found

            return changed

        patches = [mock.patch.object(Folder, name, change(name)) for name in originals]
        patches += [mock.patch.object(lane, "AGAIN_S", 0.0)]
        patches += [mock.patch.object(run, name, value) for name, value in (("MANY_SMALL", 6), ("SMALL_ROWS", 9))]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield

    def _die(self) -> None:
        self.killed = True
        raise KilledError


def live(folder: Folder, fate: Fate, seed: int, photos: int = 36) -> int:
    """Lives until one succeeds; how many there were. Raises AssertionError unless rows out are photos in, each once."""
    first = [{"uri": f"{n}", "etag": "1"} for n in range(photos)]
    second = [row | {"etag": "2"} if int(row["uri"]) % 7 == 0 else row for row in first[:-5]] + [
        {"uri": "new", "etag": "1"}
    ]
    lives = 0
    with fate.at_work():
        for generation, listing in enumerate((first, second)):
            while True:
                lives += 1
                assert lives < 20
                try:
                    _one_life(folder, listing, generation, random.Random(seed + lives))
                    break
                except KilledError:
                    continue
            _read_by_a_stranger(folder, listing)
    return lives


def _one_life(folder: Folder, listing: list[dict], generation: int, chance: random.Random) -> None:
    one = Run(folder, "geotags", SCHEMA)
    one.settle({"a": 1})
    if one.manifest.generations <= generation:
        batches = [pa.RecordBatch.from_pylist(listing, LISTING)]
        one.manifest.append(batches, {}, one.no_success, counts=lambda uri: True)
    one.set_aside_damaged()
    writer = _Writer(one.parts, None, SimpleNamespace(beat=SimpleNamespace(remote=lambda *_: None)))
    units, _ = one.pending()
    ids = [row for unit in units for row in unit.pending(one.manifest).select(["id", "uri"]).to_pylist()]
    stretches = [ids[at : at + 4] for at in range(0, len(ids), 4)]
    stretches += chance.sample(stretches, len(stretches) // 4)  # tasks that ran twice
    chance.shuffle(stretches)
    for stretch in stretches:
        rows = [row | {"status": "located", "error_kind": None} for row in stretch]
        writer(pa.Table.from_pylist(rows, SCHEMA))
    assert one.reconcile() == 0
    one.compact(lambda table: table)
    assert one.reconcile() == 0
    one.succeed({})
    assert one.succeeded


def _read_by_a_stranger(folder: Folder, listing: list[dict]) -> None:
    """Who knows nothing but Parquet."""
    parts = [name for name in (folder / "geotags").names() if name.endswith(".parquet")]
    data = [folder.filesystem.cat_file(folder.path(f"geotags/{name}")) for name in parts]
    rows = pa.concat_tables([pq.read_table(pa.BufferReader(one)) for one in data])
    uris = [uri for (uri,) in duckdb.from_arrow(rows).project("uri").fetchall()]
    assert sorted(uris) == sorted(row["uri"] for row in listing)
    assert folder.exists("_SUCCESS")


def store(kind: str, path: Path) -> Folder:
    return Folder(str(path)) if kind == "disk" else Folder(f"s3://lives/{path.name}", S3Options())
