from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.photos import manifest as module
from geoloc.photos.manifest import Manifest
from geoloc.schema import LISTING
from geoloc.storage import Folder


def listing(**etags: str) -> list[pa.RecordBatch]:
    rows = [{"uri": uri, "etag": etag, "size": 1} for uri, etag in etags.items()]
    return [pa.RecordBatch.from_pylist([row], LISTING) for row in rows]


@dataclass(frozen=True)
class Turn:
    term: int

    def __call__(self) -> None:
        """Somebody who was paused between asking and writing was told that it was theirs."""


def everything(manifest: Manifest) -> list[dict]:
    return [row for part in manifest.parts for row in manifest.read(part).to_pylist()]


def test_later_listings_add_what_is_new_or_changed(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))
    assert Manifest(folder).append(listing(a="1", b="1", c="1")).added == 3
    assert Manifest(folder).append(listing(a="1", b="1", c="1")).added == 0
    assert Manifest(folder).append(listing(a="1", b="2", d="1")).added == 2
    assert Manifest(folder).append(listing(a="1", b="2", d="1")).added == 0
    assert Manifest(folder).append(listing(b="3")).added == 1
    manifest = Manifest(folder)
    assert [row["id"] for row in everything(manifest)] == list(range(6))
    assert [(r["uri"], r["etag"], r["replaces"]) for r in everything(manifest)[3:]] == [
        ("b", "2", 1),
        ("d", "1", None),
        ("b", "3", 3),
    ]
    assert manifest.dead().tolist() == [1, 3]


def test_a_listing_that_died_leaves_no_trace(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))

    def dying():
        yield from listing(a="1", b="1")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Manifest(folder).append(dying())
    assert Manifest(folder).rows == 0
    assert Manifest(folder).append(listing(a="1")).added == 1
    assert Manifest(folder).rows == 1


def test_parts_and_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_ROWS", 100)
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 7)
    manifest = Manifest(Folder(str(tmp_path)))
    manifest.append(
        [pa.RecordBatch.from_pylist([{"uri": str(i)} for i in range(n, n + 30)], LISTING) for n in range(0, 240, 30)]
    )
    assert [part.rows for part in manifest.parts] == [100, 100, 40]
    assert [part.first_id for part in manifest.parts] == [0, 100, 200]
    for start, stop in ((0, 1), (5, 40), (93, 100), (0, 100)):
        ids = manifest.slice(manifest.parts[1], start, stop)["id"].to_numpy()
        assert np.array_equal(ids, np.arange(100 + start, 100 + stop))


def test_what_is_not_listed_any_more_is_gone_if_it_counts(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))
    Manifest(folder).append(listing(a="1", b="2", c="3", d="4"))
    listed = Manifest(folder).append(listing(a="1", e="2"), counts=lambda uri: uri != "d")
    assert (listed.added, listed.gone, listed.moved) == (1, 2, 1)  # b is e now, c is nowhere, of d nobody knows
    assert Manifest(folder).dead().tolist() == [1, 2]
    assert Manifest(folder).append(listing(a="1", e="2"), counts=lambda uri: uri != "d") == module.Listed(0)
    back = Manifest(folder).append(listing(a="1", c="3", e="2"), counts=lambda uri: False)
    assert (back.added, back.gone) == (1, 0)
    assert [row["replaces"] for row in everything(Manifest(folder))[-1:]] == [None]


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("12")), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_manifest_holds_what_its_last_listing_saw(tmp_path_factory, listings):
    folder = Folder(str(tmp_path_factory.mktemp("run") / "manifest"))
    for photos in listings:
        Manifest(folder).append(listing(**photos), counts=lambda uri: True)
    manifest = Manifest(folder)
    dead = set(manifest.dead().tolist())
    assert {row["uri"]: row["etag"] for row in everything(manifest) if row["id"] not in dead} == listings[-1]
    assert manifest.rows - len(dead) == len(listings[-1])


def test_two_runs_cannot_both_count_a_generation(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))
    paused = Manifest(replace(folder, fence=Turn(1)))
    Manifest(replace(folder, fence=Turn(2))).append(listing(a="1"))
    with pytest.raises(UsageError, match="another run has listed"):
        paused.append(listing(b="1"))
    assert [row["uri"] for row in everything(Manifest(folder))] == ["a"]
