import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source
from geoloc.pipeline.run import Run
from geoloc.schema import LISTING
from geoloc.storage import Folder, S3Options

SCHEMA = pa.schema({"id": pa.int64()})
FAILING = pa.schema({"id": pa.int64(), "uri": pa.string(), "status": pa.string(), "error_kind": pa.string()})


def open_run(folder, schema: pa.Schema = SCHEMA) -> Run:
    return Run(Folder(str(folder)), "geotags", schema)


def run_with(folder, photos: int, schema: pa.Schema = SCHEMA) -> Run:
    run = open_run(folder, schema)
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
    assert left == len(pending) == sum(unit.left for unit in units)
    if pending:
        run.parts.add(rows(pending[::2]))
        again = run.left_of(units[1:])
        assert [i for unit in again for i in unit.pending(run.manifest)["id"].to_pylist()] == [
            i for i in pending if i in pending[1::2] and i >= units[0].stop
        ]
        done, left = sorted([*done, *pending[::2]]), len(pending[1::2])
    assert run.reconcile() == left
    assert sorted(np.concatenate([np.zeros(0, int), *dict(run.parts.ids()).values()])) == done


def test_rows_of_replaced_photos_go(tmp_path):
    run = run_with(tmp_path, 3)
    run.parts.add(rows([0, 1, 2]))
    run.manifest.append([pa.RecordBatch.from_pylist([{"uri": "1", "etag": "2"}], LISTING)])
    units, left = run.pending()
    assert (left, units[0].pending(run.manifest)["id"].to_pylist()) == (1, [3])
    run.parts.add(rows([3]))
    assert run.reconcile() == 0
    assert sorted(np.concatenate(list(dict(run.parts.ids()).values()))) == [0, 2, 3]


def failing(ids, kinds) -> pa.Table:
    status = ["failed" if kind else "located" for kind in kinds]
    return pa.table({"id": ids, "uri": [str(i) for i in ids], "status": status, "error_kind": kinds}).cast(FAILING)


def test_failures_that_can_be_put_right_are_tried_again(tmp_path):
    run = run_with(tmp_path, 4, FAILING)
    run.parts.add(failing(range(4), [None, "network", "truncated", "forbidden"]))
    run.succeed({})
    assert run.forget_failures(()) == 0
    assert run.succeeded
    assert run.forget_failures({"network", "forbidden"}) == 2
    assert run.tried_again.tolist() == [1, 3]
    assert not run.succeeded
    units, left = run.pending()
    assert (left, units[0].pending(run.manifest)["id"].to_pylist()) == (2, [1, 3])
    run.parts.add(failing([1, 3], ["network", "network"]))
    before = run.parts.names()
    assert run.forget_failures({"network"}) == 2
    assert len(run.parts.names()) == len(before) - 1  # a part of which nothing is left goes
    run.parts.add(failing([1, 3], [None, None]))
    assert (run.forget_failures({"network"}), run.reconcile()) == (0, 0)


def test_success_is_of_what_is_there_now(tmp_path):
    run = run_with(tmp_path, 2)
    run.settle({"candidates": 20})
    run.succeed({"located": 2})
    assert json.loads(run.folder.read("_SUCCESS"))["counts"] == {"located": 2}
    assert run.succeeded
    run.write_record(settings={"candidates": 5})
    assert not run.succeeded
    run.write_record(settings={"candidates": 20})
    assert run.succeeded
    run.manifest.append([pa.RecordBatch.from_pylist([{"uri": "2", "etag": "1"}], LISTING)])
    assert not run.succeeded
    for text in (b"", b"{}", b"[]", b"\xff"):
        run.folder.write("_SUCCESS", text)
        assert not run.succeeded


def test_damaged_and_foreign_parts_are_set_aside_and_done_again(tmp_path):
    run = run_with(tmp_path, 10, FAILING)
    good = failing([0, 1], [None, None])
    run.parts.add(good)
    whole = (tmp_path / "geotags" / run.parts.names()[0]).read_bytes()
    bad = {"cut": whole[:-30], "empty": b"", "junk": b"junk" * 100}
    for name, data in bad.items():
        (tmp_path / "geotags" / f"part-{name}.parquet").write_bytes(data)
    run.parts.write("part-columns.parquet", pa.table({"a": [1]}))
    run.parts.write("part-others.parquet", good.set_column(1, "uri", pa.array(["of", "another run"])))
    run.parts.write("part-beyond.parquet", failing([77], [None]))
    pq.write_table(good.slice(0, 0), tmp_path / "geotags" / "part-rows.parquet")
    run.succeed({})
    expected = [f"part-{name}.parquet" for name in ("beyond", "columns", "cut", "empty", "junk", "others", "rows")]
    assert run.set_aside_damaged() == expected
    assert not run.succeeded
    assert run.pending()[1] == 8
    assert len(list((tmp_path / "set-aside").iterdir())) == 7
    assert run.set_aside_damaged() == []


@pytest.mark.parametrize("killed_after", [None, 0, 1, 5])
def test_many_small_parts_are_put_together_whenever_that_is_cut_off(tmp_path, monkeypatch, killed_after):
    for name, value in {"SMALL_ROWS": 4, "MANY_SMALL": 6, "LARGE_ROWS": 8}.items():
        monkeypatch.setattr(f"geoloc.pipeline.run.{name}", value)
    run = run_with(tmp_path, 40)
    run.parts.add(rows(range(10)))
    for start in range(10, 22, 3):
        run.parts.add(rows(range(start, start + 3)))
    run.succeed({})
    assert run.compact(lambda table: table) == 0  # too few
    assert run.succeeded
    for start in range(22, 40, 3):
        run.parts.add(rows(range(start, start + 3)))
    with monkeypatch.context() as patched:
        if killed_after is not None:
            delete, left = Folder.delete, iter(range(killed_after))

            def dies(self, name):
                if name.endswith(".parquet"):
                    next(left)
                delete(self, name)

            patched.setattr(Folder, "delete", dies)
            with pytest.raises(StopIteration):
                run.compact(lambda table: table)
        else:
            assert run.compact(lambda table: table) == 10 - 5
            assert len(run.parts.names()) == 6
    assert not run.succeeded
    again = open_run(tmp_path)
    assert again.pending()[1] == 0
    assert again.reconcile() == 0
    ids = np.concatenate(list(dict(again.parts.ids()).values()))
    assert sorted(ids) == list(range(40))


def test_other_settings_are_refused_with_the_difference(tmp_path):
    run = open_run(tmp_path)
    run.settle({"candidates": 7})
    run.settle({"candidates": 20, "chooser": "top1"})  # nothing was done with the others
    run_with(tmp_path, 3)
    run = open_run(tmp_path)
    run.settle({"candidates": 20, "chooser": "top1"})
    with pytest.raises(UsageError, match=r"candidates was 20, is now 5; chooser was 'top1', is now 'density'"):
        run.settle({"candidates": 5, "chooser": "density"})


def test_an_unfinished_run_is_not_listed_again(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    source = str(tmp_path / "photos")
    run = open_run(tmp_path / "out")
    assert run.list_photos(Source(source, S3Options())) == "1 photos"
    (tmp_path / "photos" / "b.jpg").write_bytes(b"x")
    assert run.list_photos(Source(source, S3Options())) == "going on with 1 listed photos"
    run.succeed({})
    assert run.list_photos(Source(source, S3Options())) == "1 new or changed photos"
    assert not run.succeeded


def test_another_selection_lists_again(tmp_path):
    (tmp_path / "photos" / "raw").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "raw/c.jpg", "raw/d.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"x")

    def listed(**options) -> tuple[str, list[int]]:
        run = open_run(tmp_path / "out")
        said = run.list_photos(Source(str(tmp_path / "photos"), S3Options(), ListingOptions(**options)))
        return said, sorted(i for unit in run.pending()[0] for i in unit.pending(run.manifest)["id"].to_pylist())

    assert listed(limit=1) == ("1 photos", [0])
    assert listed(limit=1) == ("going on with 1 listed photos", [0])
    assert listed() == ("3 new or changed photos", [0, 1, 2, 3])
    open_run(tmp_path / "out").parts.add(rows([0, 1, 2, 3]))
    assert listed(exclude=("raw/*",)) == ("0 new or changed photos", [])
    run = open_run(tmp_path / "out")
    run.list_photos(Source(str(tmp_path / "photos"), S3Options(), ListingOptions(exclude=("raw/*",))))
    assert run.reconcile() == 0
    assert sorted(np.concatenate(list(dict(run.parts.ids()).values()))) == [0, 1]
    assert listed() == ("0 new or changed photos", [2, 3])


def test_an_empty_archive_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "a.CR2").write_text("")
    message = r"no photos there \(2 files of other types left out: 1 .cr2 \(RAW\), 1 .txt\)"
    with pytest.raises(UsageError, match=message):
        open_run(tmp_path / "out").list_photos(Source(str(tmp_path), S3Options()))


def test_half_written_files_are_swept_away(tmp_path):
    (tmp_path / "geotags").mkdir()
    (tmp_path / "geotags" / ".part-1.parquet.77.tmp").write_bytes(b"half")
    run = open_run(tmp_path)
    assert list((tmp_path / "geotags").iterdir()) == []
    assert list(run.parts.ids()) == []


def test_what_is_not_approved_changes_nothing(tmp_path):
    """A run that succeeded stays so, whether a photo is new or a failure would be tried again, until the models are there."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"a")
    source = Source(str(tmp_path / "photos"), S3Options())
    run = open_run(tmp_path / "run", FAILING)
    run.write_record(settings={})
    run.take_up(source, ())
    row = {"id": 0, "uri": str(tmp_path / "photos" / "a.jpg"), "status": "failed", "error_kind": "network"}
    run.parts.add(pa.Table.from_pylist([row], FAILING))
    run.succeed({"failed": 1})

    def refuse() -> None:
        raise UsageError("no such GPU")

    for kinds, new in ((["network"], None), ((), "b.jpg")):
        if new:
            (tmp_path / "photos" / new).write_bytes(b"b")
        again = open_run(tmp_path / "run", FAILING)
        with pytest.raises(UsageError, match="no such GPU"):
            again.take_up(source, kinds, refuse)
        assert again.succeeded
        assert sum(table.num_rows for table in again.parts.tables()) == 1
    approved = []
    last = open_run(tmp_path / "run", FAILING)
    last.take_up(source, ["network"], lambda: approved.append(True))
    assert approved == [True]
    assert (last.succeeded, last.pending()[1]) == (False, 2)


def test_results_are_renewed_once_and_again_after_a_cut(tmp_path):
    """A later stage's columns: done where the record says another state, and begun anew where that was cut off."""
    run = run_with(tmp_path, 6)
    for start in (0, 3):
        run.parts.add(rows([start, start + 1, start + 2]))
    run.succeed({})
    seen = []

    def change(table: pa.Table) -> pa.Table:
        seen.append(table.num_rows)
        return table

    run.renew("context", {"state": 1}, change)
    assert seen == [3, 3]
    assert not run.succeeded  # until the run says so again
    run.renew("context", {"state": 1}, change)
    assert seen == [3, 3]

    def cut(table: pa.Table) -> pa.Table:
        if len(seen) == 3:
            raise KeyboardInterrupt
        return change(table)

    with pytest.raises(KeyboardInterrupt):
        run.renew("context", {"state": 2}, cut)
    assert run.record()["context"] is None
    run.renew("context", {"state": 1}, change)  # also back to what it was: half of the parts have been changed
    assert seen == [3, 3, 3, 3, 3]
    assert run.record()["context"] == {"state": 1}


def test_new_results_need_no_renewal(tmp_path):
    run = run_with(tmp_path, 3)
    run.renew("context", {"state": 1}, lambda _: pytest.fail("there is nothing to change"))
    run.parts.add(rows([0, 1, 2]))
    run.renew("context", {"state": 1}, lambda _: pytest.fail("they are up to date"))
