import numpy as np
import pyarrow as pa
import pytest

from geoloc.photos import manifest as module
from geoloc.photos.manifest import Manifest
from geoloc.schema import LISTING
from geoloc.storage import Folder


def listing(**etags: str) -> list[pa.RecordBatch]:
    rows = [{"uri": uri, "etag": etag, "size": 1} for uri, etag in etags.items()]
    return [pa.RecordBatch.from_pylist([row], LISTING) for row in rows]


def everything(manifest: Manifest) -> list[dict]:
    return [row for part in manifest.parts for row in manifest.read(part).to_pylist()]


def test_later_listings_add_what_is_new_or_changed(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))
    assert Manifest(folder).append(listing(a="1", b="1", c="1")) == 3
    assert Manifest(folder).append(listing(a="1", b="1", c="1")) == 0
    assert Manifest(folder).append(listing(a="1", b="2", d="1")) == 2
    assert Manifest(folder).append(listing(a="1", b="2", d="1")) == 0
    assert Manifest(folder).append(listing(b="3")) == 1
    manifest = Manifest(folder)
    assert [row["id"] for row in everything(manifest)] == list(range(6))
    assert [(r["uri"], r["etag"], r["replaces"]) for r in everything(manifest)[3:]] == [
        ("b", "2", 1),
        ("d", "1", None),
        ("b", "3", 3),
    ]
    assert manifest.replaced().tolist() == [1, 3]


def test_a_listing_that_died_leaves_no_trace(tmp_path):
    folder = Folder(str(tmp_path / "manifest"))

    def dying():
        yield from listing(a="1", b="1")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Manifest(folder).append(dying())
    assert Manifest(folder).rows == 0
    assert Manifest(folder).append(listing(a="1")) == 1
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
