import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.photos.sources import Source
from geoloc.schema import LISTING
from geoloc.pipeline.run import Run
from geoloc.storage import Folder, S3Options


def run_with(folder, photos: int) -> Run:
    run = Run(Folder(str(folder)), "geotags")
    run.manifest.append([pa.RecordBatch.from_pylist([{"uri": str(i), "etag": "1"} for i in range(photos)], LISTING)])
    return run


def rows(ids) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


@given(st.integers(1, 900), st.sets(st.integers(0, 899)), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_what_is_pending_is_what_has_no_row(tmp_path_factory, photos, done, repeated):
    run = run_with(tmp_path_factory.mktemp("run"), photos)
    done = sorted(i for i in done if i < photos)
    for start in range(0, len(done), 50):
        run.parts.add(rows(done[start : start + 50]))
    run.parts.add(rows(done[:repeated] * 2 or [0] * 0))
    units, left = run.pending()
    pending = [i for unit in units for i in unit.pending(run.manifest)["id"].to_pylist()]
    assert pending == sorted(set(range(photos)) - set(done))
    assert left == len(pending)
    assert run.reconcile() == left
    assert sorted(np.concatenate([np.zeros(0, int), *run.parts.ids().values()])) == done


def test_rows_of_replaced_photos_go(tmp_path):
    run = run_with(tmp_path, 3)
    run.parts.add(rows([0, 1, 2]))
    run.manifest.append([pa.RecordBatch.from_pylist([{"uri": "1", "etag": "2"}], LISTING)])
    units, left = run.pending()
    assert (left, units[0].pending(run.manifest)["id"].to_pylist()) == (1, [3])
    run.parts.add(rows([3]))
    assert run.reconcile() == 0
    assert sorted(np.concatenate(list(run.parts.ids().values()))) == [0, 2, 3]


def test_what_the_network_failed_is_tried_again(tmp_path):
    run = run_with(tmp_path, 4)
    kinds = [None, "network", "truncated", "network"]
    run.parts.add(rows(range(4)).append_column("error_kind", pa.array(kinds)))
    run.folder.write("_SUCCESS", b"")
    assert run.forget_passing_failures() == 2
    assert not run.succeeded
    units, left = run.pending()
    assert (left, units[0].pending(run.manifest)["id"].to_pylist()) == (2, [1, 3])
    run.parts.add(rows([1, 3]).append_column("error_kind", pa.array([None, None], pa.string())))
    assert (run.forget_passing_failures(), run.reconcile()) == (0, 0)


def test_other_settings_are_refused_with_the_difference(tmp_path):
    run = Run(Folder(str(tmp_path)), "geotags")
    run.settle({"candidates": 7})
    run.settle({"candidates": 20, "chooser": "top1"})  # nothing was done with the others
    run_with(tmp_path, 3)
    run = Run(Folder(str(tmp_path)), "geotags")
    run.settle({"candidates": 20, "chooser": "top1"})
    with pytest.raises(UsageError, match=r"candidates was 20, is now 5; chooser was 'top1', is now 'density'"):
        run.settle({"candidates": 5, "chooser": "density"})


def test_an_unfinished_run_is_not_listed_again(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    source = str(tmp_path / "photos")
    run = Run(Folder(str(tmp_path / "out")), "geotags")
    assert run.list_photos(Source(source, S3Options())) == "1 photos"
    (tmp_path / "photos" / "b.jpg").write_bytes(b"x")
    assert run.list_photos(Source(source, S3Options())) == "going on with 1 listed photos"
    run.folder.write("_SUCCESS", b"")
    assert run.list_photos(Source(source, S3Options())) == "1 new or changed photos"
    assert not run.succeeded


def test_an_empty_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"no photos there \(1 files of other types\)"):
        Run(Folder(str(tmp_path / "out")), "geotags").list_photos(Source(str(tmp_path), S3Options()))


def test_half_written_files_are_swept_away(tmp_path):
    (tmp_path / "geotags").mkdir()
    (tmp_path / "geotags" / ".part-1.parquet.77.tmp").write_bytes(b"half")
    run = Run(Folder(str(tmp_path)), "geotags")
    assert list((tmp_path / "geotags").iterdir()) == []
    assert run.parts.ids() == {}
