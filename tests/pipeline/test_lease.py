import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from s3fs.errors import translate_boto_error

from geoloc.errors import UsageError
from geoloc.pipeline import lease
from geoloc.pipeline.lease import LeaseLostError, leased
from geoloc.results.parts import Parts
from geoloc.storage import Folder, S3Options

ELSEWHERE = {"token": "x", "host": "elsewhere", "processes": "another boot", "pid": 1, "started": 0}


@pytest.fixture
def quick(monkeypatch):
    """A minute in a second."""
    for name, seconds in {"BEAT_S": 0.1, "STALE_S": 2.0, "TRUST_S": 0.2, "MARGIN_S": 0.1, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path):
    if request.param == "disk":
        return Folder(str(tmp_path / "run"))
    request.getfixturevalue("s3").create_bucket(Bucket="leases")
    return Folder(f"s3://leases/{tmp_path.name}")


def holder_elsewhere(folder: Folder, term: int = 1, **values) -> None:
    (folder / lease.LEASE).write(f"{term:06d}.json", json.dumps(ELSEWHERE | values).encode())


def test_a_folder_is_leased_once_and_each_turn_has_a_higher_term(folder):
    with leased(folder) as first:
        with pytest.raises(UsageError, match=rf"process {os.getpid()}\) is writing there"), leased(folder):
            pass
        first.write("a", b"1")
    with leased(folder) as second:
        assert second.fence.term == first.fence.term + 1
    assert (folder / lease.LEASE).names() == ["000002.json"]


def test_a_file_is_created_once(folder):
    assert folder.create("a", b"1")
    assert not folder.create("a", b"2")
    assert folder.read("a") == b"1"


def refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "SlowDown", "InternalError"])
def test_what_hinders_a_conditional_write_makes_it_no_other(s3, monkeypatch, code, quick):
    s3.create_bucket(Bucket="hindered")
    folder, filesystem = Folder(f"s3://hindered/{code}"), type(S3Options().filesystem())
    pipe, asked = filesystem.pipe_file, []

    def hindered(self, path, value, mode="overwrite", **others):
        asked.append(mode)
        if len(asked) < 3:
            raise translate_boto_error(refused(code))
        return pipe(self, path, value, mode=mode, **others)

    monkeypatch.setattr("geoloc.storage.CREATE_PAUSE_S", 0.01)
    monkeypatch.setattr(filesystem, "pipe_file", hindered, raising=False)
    assert folder.create("a", b"1")
    assert not folder.create("a", b"2")
    assert set(asked) == {"create"}
    assert folder.read("a") == b"1"


def test_a_file_whose_creation_lost_its_answer_is_ones_own(tmp_path, monkeypatch):
    link = os.link

    def lost(draft, name):
        link(draft, name)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lost)
    assert Folder(str(tmp_path)).create("a", b"1")
    monkeypatch.undo()
    assert not Folder(str(tmp_path)).create("a", b"2")


def test_whoever_takes_over_waits_for_writers_that_trust(tmp_path, quick, monkeypatch):
    """A worker of a run whose driver is paused writes on for a moment."""
    monkeypatch.setattr(lease, "TRUST_S", 1.0)
    folder = Folder(str(tmp_path))
    with leased(folder) as first:
        first.write("a", b"1")
        start = last = time.monotonic()
        with ThreadPoolExecutor() as pool:
            holder_elsewhere(folder, 2)  # at rest: it will be found dead
            second = pool.submit(lambda: leased(folder).__enter__() and time.monotonic())
            with contextlib.suppress(LeaseLostError):
                while time.monotonic() - start < 20:
                    first.write("b", b"1")
                    last = time.monotonic()
                    time.sleep(0.02)
            assert second.result(30) > last


def test_a_zombie_and_a_process_of_that_number_are_not_the_run(tmp_path, quick):
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = lease._started(child.pid)
    time.sleep(0.5)
    mine = {"processes": lease._processes(), "pid": child.pid, "host": "here", "token": "x"}
    for pid, when in ((child.pid, started), (os.getpid(), 1)):
        folder = Folder(str(tmp_path / str(pid)))
        (folder / lease.LEASE).write("000001.json", json.dumps(mine | {"pid": pid, "started": when}).encode())
        with leased(folder) as taken:
            assert taken.fence.term == 2
    child.wait()


def test_half_a_record_is_looked_at_again(tmp_path, quick, monkeypatch):
    with leased(Folder(str(tmp_path))) as folder:
        halves = iter([(1, {}), (1, {})])
        last = lease._last
        monkeypatch.setattr(lease, "_last", lambda terms: next(halves, None) or last(terms))
        time.sleep(2 * lease.TRUST_S)
        folder.write("a", b"1")


def test_a_killed_run_is_taken_over_at_once_where_it_ran(tmp_path, quick):
    code = (
        "from geoloc.pipeline.lease import leased; from geoloc.storage import Folder\n"
        f"with leased(Folder({str(tmp_path)!r})): print('held', flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="is writing there"), leased(Folder(str(tmp_path))):
        pass
    process.kill()
    process.wait()
    with leased(Folder(str(tmp_path))) as folder:
        assert folder.fence.term == 2


@pytest.mark.parametrize("clock", [-3_600, 3_600])
def test_a_run_elsewhere_lives_while_it_renews_whatever_its_clock_says(folder, quick, clock):
    stop = threading.Event()

    def renew():
        while not stop.wait(0.3):
            holder_elsewhere(folder, at=time.time() + clock)

    holder_elsewhere(folder)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(UsageError, match=r"a run on elsewhere .*--wait-minutes"), leased(folder):
            pass
    finally:
        stop.set()
        thread.join()
    with leased(folder) as taken:  # it renews no more
        assert taken.fence.term == 2


def test_the_next_run_waits_its_turn(folder, quick):
    with ThreadPoolExecutor() as pool:
        with leased(folder):
            waiting = pool.submit(lambda: leased(folder, wait_minutes=1).__enter__().fence.term)
            time.sleep(0.5)
            assert not waiting.done()
        assert waiting.result(10) == 2


def test_the_same_host_in_another_container_is_another_machine(tmp_path, quick):
    folder = Folder(str(tmp_path))
    with leased(folder):
        mine = json.loads((folder / lease.LEASE).read("000001.json"))
    holder_elsewhere(folder, 2, **mine | {"processes": mine["processes"] + "0", "pid": os.getpid()})
    start = time.monotonic()
    with leased(folder):
        assert time.monotonic() - start > lease.STALE_S  # its process number said nothing


def test_a_run_that_was_taken_over_writes_no_more(folder, quick):
    with leased(folder) as paused:
        Parts(paused / "parts").add(rows := pa_table([1]))
        holder_elsewhere(folder, 2)
        time.sleep(2 * lease.TRUST_S)
        for change in (
            lambda: paused.write("a", b"1"),
            lambda: paused.create("b", b"1"),
            lambda: (paused / "deep" / "er").delete("c"),
            lambda: Parts(paused / "parts").add(rows),
        ):
            with pytest.raises(LeaseLostError, match="took it over, because"):
                change()
    assert folder.names() == []
    assert (folder / lease.LEASE).names()[-1] == "000002.json"  # and takes nobody's turn


def test_parts_tell_in_whose_turn_they_were_written(tmp_path):
    names = []
    for _ in range(2):
        with leased(Folder(str(tmp_path))) as folder:
            Parts(folder / "parts").add(pa_table([1, 2]))
            names.append(Parts(folder / "parts").names())
    assert [name[:11] for name in names[1]] == ["part-000001", "part-000002"]


def test_of_many_that_start_at_once_one_has_its_turn(folder, quick):
    """Also where the store has no conditional writes, or says that it has."""
    inside, most, turns = 0, 0, []
    lock = threading.Lock()

    def turn(_):
        nonlocal inside, most
        with leased(folder, wait_minutes=1) as mine:
            with lock:
                inside += 1
                most = max(most, inside)
                turns.append(mine.fence.term)
            time.sleep(0.02)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(turn, range(6)))
    assert (most, sorted(turns)) == (1, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("answer", ["refuses", "ignores"])
def test_a_store_without_conditional_writes(tmp_path, s3, quick, monkeypatch, answer):
    s3.create_bucket(Bucket="plain")
    pipe = type(S3Options().filesystem()).pipe_file

    def unconditional(self, path, value, mode="overwrite", **others):
        if mode == "create" and answer == "refuses":
            raise translate_boto_error(refused("NotImplemented"))
        return pipe(self, path, value, **others)

    monkeypatch.setattr(type(S3Options().filesystem()), "pipe_file", unconditional, raising=False)
    monkeypatch.setattr(lease, "SETTLE_S", 1.0)
    test_of_many_that_start_at_once_one_has_its_turn(Folder(f"s3://plain/{answer}"), None)


def pa_table(ids: list[int]) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})
