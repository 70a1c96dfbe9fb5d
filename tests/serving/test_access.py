"""Keys, rates, and what a service is started with."""

import hashlib
import importlib
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from geoloc.errors import UsageError
from geoloc.serving.access import Ledger, Rate, is_elsewheres, named, read_keys
from geoloc.serving.options import ServingOptions
from geoloc.serving.service import ServiceOptions, run_service
from tests.conftest import REPOSITORY


def test_a_key_that_was_made_is_known(tmp_path, monkeypatch):
    made = subprocess.run([sys.executable, "-m", "geoloc.serving.access", "ann"], capture_output=True, text=True)
    key = made.stderr.rpartition(" ")[2].strip()
    (tmp_path / "keys").write_text(f"# people\n{made.stdout}")
    assert named(read_keys(str(tmp_path / "keys")), key) == "ann"
    assert named(read_keys(str(tmp_path / "keys")), key + "x") is None
    assert key not in (tmp_path / "keys").read_text()
    monkeypatch.setenv("GEOLOC_API_KEYS", f"bob {hashlib.sha256(b'secret').hexdigest()}")
    assert named(read_keys(None), "secret") == "bob"


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
    assert is_elsewheres(headers) is refused


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
        run_service(ServiceOptions(host="0.0.0.0", service=ServingOptions(preset="lite", index="/nowhere")))


def test_the_cluster_configuration_is_one_that_can_be_built():
    [application] = yaml.safe_load((REPOSITORY / "cluster" / "serve.yaml").read_text())["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    assert ServingOptions(**application["args"]).keys
    with pytest.raises(ValidationError, match="gpus"):
        ServingOptions(**application["args"], gpus=1)
