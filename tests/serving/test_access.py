"""Keys, rates, and what a service is started with."""

import hashlib
import importlib
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from geoloc.errors import UsageError
from geoloc.serving import access
from geoloc.serving.access import Keys, Ledger, Rate, is_cross_site, named, read_keys
from geoloc.serving.options import ServingOptions
from geoloc.serving.service import ServiceOptions, run_service
from tests.conftest import REPOSITORY


def keys(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "geoloc.cli", "keys", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        assert done.returncode == 2
        return done.stderr.strip()
    return done.stdout.strip()


def test_keys_are_made_listed_and_revoked(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("# people\n")
    made = [keys(file, "--make", name) for name in ("ann", "bob", "ann")]
    assert [named(read_keys(str(file)), key) for key in made] == ["ann", "bob", "ann"]
    assert named(read_keys(str(file)), made[0] + "x") is None
    assert not any(key in file.read_text() for key in made)
    keys(tmp_path / "new", "--make", "ann")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert keys(file) == "ann  2 keys\nbob  1 key"
    assert keys(file, "--revoke", "ann") == "2 keys of ann revoked"
    assert file.read_text().startswith("# people\nbob ")
    assert keys(file, "--revoke", "ann") == f"error: --revoke ann: has no key in {file}"
    assert keys(file, "--make", "a b").startswith("error: --make a b: a name has letters, digits")
    assert (
        keys(tmp_path / "none")
        == f"error: keys {tmp_path}/none: cannot read it ([Errno 2] No such file or directory: '{tmp_path}/none')"
    )
    (tmp_path / "link").symlink_to(file)
    file.chmod(0o640)
    assert keys(tmp_path / "link", "--revoke", "bob") == "1 key of bob revoked"
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("# people\n", 0o640)
    monkeypatch.setenv("GEOLOC_API_KEYS", f"cy {hashlib.sha256(b'secret').hexdigest()}")
    assert named(read_keys(None), "secret") == "cy"
    assert keys(file) == ""


def test_a_service_that_runs_sees_who_was_revoked(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "RELOAD_S", 0)
    file = tmp_path / "keys"
    file.write_text(f"ann {hashlib.sha256(b'a').hexdigest()}\nbob {hashlib.sha256(b'b').hexdigest()}\n")
    known = Keys(str(file))
    assert (known.owner("a"), known.owner("b")) == ("ann", "bob")
    file.write_text(f"bob {hashlib.sha256(b'b').hexdigest()}\n")
    assert (known.owner("a"), known.owner("b")) == (None, "bob")
    file.write_text("bob b\n")
    assert known.owner("b") == "bob"
    file.rename(tmp_path / "gone")
    assert known.owner("b") == "bob"
    file.write_text(f"bob {hashlib.sha256(b'b').hexdigest()}\n")
    file.write_text("")
    assert (known.owner("b"), bool(known)) == (None, True)


def test_a_wrong_key_takes_as_long_as_a_right_one():
    """Over 10,000 tries of each, whichever of the file's keys is asked for, and however much of one is right."""
    known = {hashlib.sha256(str(number).encode()).hexdigest(): str(number) for number in range(20)}
    asked = {"first": "0", "last": "19", "wrong": "20", "nearly": "19 ", "empty": ""}
    seconds = {name: [] for name in asked}
    for _ in range(10_000):
        for name, key in asked.items():
            start = time.perf_counter_ns()
            named(known, key)
            seconds[name].append(time.perf_counter_ns() - start)
    middle = [np.median(values) for values in seconds.values()]
    assert max(middle) < 1.3 * min(middle)  # one that stopped at the first key would take half as long


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"host": "127.0.0.1:8000"}, False),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, False),
        ({"host": "127.0.0.1:8000", "sec-fetch-site": "none"}, False),
        ({"host": "127.0.0.1:8000", "origin": "https://stranger.example"}, True),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, True),
        ({"host": "127.0.0.1:8000", "origin": "null"}, True),
        ({"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site"}, True),
    ],
)
def test_pages_of_other_sites_ask_nothing(headers, refused):
    """As browsers say it (Fetch Metadata Request Headers; RFC 6454)."""
    assert is_cross_site(headers) is refused


def test_keys_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="keys /nowhere: cannot read it"):
        read_keys("/nowhere")
    (tmp_path / "keys").write_text("# people\n\nann secret")
    with pytest.raises(UsageError, match=r"keys .*: line 3 is not a name and a SHA-256") as told:
        read_keys(str(tmp_path / "keys"))
    assert "secret" not in str(told.value)


def test_so_many_a_minute():
    rate = Rate(60)
    assert [rate.wait_s("ann", now=100.0) for _ in range(60)] == [0] * 60
    assert rate.wait_s("ann", now=100.0) == pytest.approx(1)
    assert rate.wait_s("bob", now=100.0) == 0
    assert rate.wait_s("ann", now=100.5) == pytest.approx(0.5)
    assert rate.wait_s("ann", now=101.0) == 0
    assert rate.wait_s("ann", now=101.0) == pytest.approx(1)


def test_who_brings_many_at_once_waits_for_them_afterwards():
    rate = Rate(60)
    assert rate.wait_s("ann", now=100.0) == 0
    rate.charge("ann", 79, now=100.0)
    assert rate.wait_s("ann", now=110.0) == pytest.approx(11)
    assert rate.wait_s("ann", now=121.0) == 0


def test_what_copies_tell_each_other():
    ledger = Ledger()
    assert ledger.exchange("a", {"ann": 3}, now=0) == {}
    assert ledger.exchange("b", {"ann": 1}, now=0) == {}
    assert ledger.exchange("a", {"bob": 2}, now=1) == {"ann": 1}
    assert ledger.exchange("a", {"bob": 1}, now=2) == {}
    assert ledger.exchange("b", {}, now=3) == {"bob": 3}
    assert ledger.exchange("b", {"ann": 9}, now=90) == {}
    assert ledger.exchange("a", {}, now=91) == {}


def test_what_is_left_is_told():
    rate = Rate(60)
    assert rate.left("ann", now=100.0) == (60, 0)
    rate.charge("ann", 3, now=100.0)
    assert rate.left("ann", now=100.0) == (57, 3)
    assert rate.left("ann", now=101.5) == (58, 2)
    rate.charge("ann", 100, now=101.5)
    assert rate.left("ann", now=101.5) == (0, 102)


def test_what_counts_here_and_elsewhere():
    rate = Rate(60)
    rate.wait_s("ann", now=100.0)
    rate.charge("ann", 2, now=100.0)
    rate.charge("ann", 56, now=100.0, here=False)
    assert rate.report() == {"ann": 3}
    assert rate.report() == {}
    assert rate.wait_s("ann", now=100.0) == 0
    assert rate.wait_s("ann", now=100.0) == pytest.approx(1)


def test_other_machines_are_answered_only_with_keys():
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0: without --keys the service is for this machine alone"):
        run_service(ServiceOptions(host="0.0.0.0", service=ServingOptions(recipe="lite", index="/nowhere")))


def test_the_cluster_configuration_is_one_that_can_be_built():
    [application] = yaml.safe_load((REPOSITORY / "cluster" / "serve.yaml").read_text())["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert ServingOptions(**application["args"]).keys
    with pytest.raises(ValidationError, match="gpus"):
        ServingOptions(**application["args"], gpus=1)


def test_a_batch_fits_into_the_places_of_one_key():
    with pytest.raises(ValidationError, match="max_waiting 16: must be at least twice max_batch"):
        ServingOptions(max_batch=9, max_waiting=16)
