import http.server
import threading

import boto3
import botocore.exceptions
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from geoloc.photos import bucket as module
from geoloc.photos.bucket import Bucket
from geoloc.storage import S3Options

KEYS = st.lists(st.sampled_from(["a", "b", "é", " ", "+", "%41", "&", "<", "/", "//", ".."]), min_size=1, max_size=6)


def peers_listing(client, name: str, prefix: str) -> list[tuple]:
    """By botocore's own paginator and parser."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
    entries = [entry for page in pages for entry in page.get("Contents", ())]
    return [
        (f"s3://{name}/{entry['Key']}", entry["Size"], entry["ETag"], entry["LastModified"])
        for entry in entries
        if not entry["Key"].endswith("/")
    ]


def listing(name: str, prefix: str = "", s3: S3Options | None = None) -> list[tuple]:
    columns = ("uri", "size", "etag", "modified")
    return [tuple(row[column] for column in columns) for row in Bucket(s3 or S3Options(), name).objects(prefix)]


@given(keys=st.sets(KEYS.map("".join), max_size=20), size=st.integers(1, 9), at_once=st.integers(1, 4))
@example(keys={f"{n}/" for n in range(9)}, size=2, at_once=2)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_lists_what_botocore_lists_in_its_order(s3, monkeypatch, keys, size, at_once):
    monkeypatch.setattr(module, "PAGE", size)
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    name = f"listed-{threading.get_ident()}-{id(keys)}"
    s3.create_bucket(Bucket=name)
    for key in keys:
        s3.put_object(Bucket=name, Key=key, Body=key.encode())
    for prefix in ("", "a", "b/"):
        assert listing(name, prefix) == peers_listing(s3, name, prefix)
    for key in keys:
        s3.delete_object(Bucket=name, Key=key)
    s3.delete_bucket(Bucket=name)


def test_it_may_be_left_before_its_end(s3, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 5)
    monkeypatch.setattr(module, "PAGES_AHEAD", 1)
    s3.create_bucket(Bucket="left")
    for number in range(120):
        s3.put_object(Bucket="left", Key=f"{number % 12:02d}/{number:03d}", Body=b"")
    objects = Bucket(S3Options(), "left").objects("")
    assert [next(objects)["uri"] for _ in range(12)][-1] == "s3://left/01/013"
    objects.close()
    for thread in threading.enumerate():
        if thread.name == "listing":
            thread.join(10)
            assert not thread.is_alive()


class Awkward(http.server.BaseHTTPRequestHandler):
    """Answers one page when it has been asked often enough."""

    answers: list = []

    def do_GET(self):
        status, body = self.answers.pop(0)
        if not status:
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


PAGE = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>%s</ListBucketResult>"""
ENTRY = "<Contents><Key>{}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag><LastModified>2020-02-03T04:05:06.000Z</LastModified>{}</Contents>"


@pytest.fixture
def awkward(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Awkward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield S3Options(endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1", anonymous=True)
    server.shutdown()


def test_trouble_that_may_pass_is_waited_for(awkward):
    Awkward.answers = [(503, b"<Error><Code>SlowDown</Code></Error>"), (0, b""), (500, b"oops"), (200, PAGE % b"")]
    assert listing("bucket", s3=awkward) == []
    assert Awkward.answers == []


def test_a_refusal_is_told_as_botocore_tells_it(awkward):
    Awkward.answers = [(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")]
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied") as caught:
        listing("bucket", s3=awkward)
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_what_is_in_cold_storage_is_known(awkward):
    frozen = "<StorageClass>GLACIER</StorageClass>"
    expiry = "<RestoreExpiryDate>2030-01-01T00:00:00.000Z</RestoreExpiryDate>"
    entries = [
        ENTRY.format("plain", "<StorageClass>STANDARD</StorageClass>"),
        ENTRY.format("instant", "<StorageClass>GLACIER_IR</StorageClass>"),
        ENTRY.format("frozen", frozen),
        ENTRY.format(
            "thawing", f"{frozen}<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>"
        ),
        ENTRY.format(
            "thawed", f"{frozen}<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>{expiry}</RestoreStatus>"
        ),
    ]
    Awkward.answers = [(200, PAGE % "".join(entries).encode())]
    rows = list(Bucket(awkward, "bucket").objects(""))
    archived = {row["uri"].rsplit("/", 1)[-1]: row["archived"] for row in rows}
    assert archived == {"plain": False, "instant": False, "frozen": True, "thawing": True, "thawed": False}
    assert {row["etag"] for row in rows} == {'"e"'}


def test_without_credentials_nothing_is_asked(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(boto3.session.Session, "get_credentials", lambda self: None)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(botocore.exceptions.NoCredentialsError):
        listing("bucket", s3=S3Options(endpoint="http://127.0.0.1:9", region="us-east-1"))
