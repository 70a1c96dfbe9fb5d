import dataclasses
import http.server
import threading
import time
import traceback

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


@pytest.mark.parametrize("name", ["IMG_{:06d}.jpg", "{:08x}.jpg", "DSC{:d}.JPG", "é {:04d} (copy).png"])
def test_a_folder_without_folders_is_cut_too(s3, monkeypatch, name):
    monkeypatch.setattr(module, "PAGE", 10)
    bucket = f"flat-{abs(hash(name))}"
    s3.create_bucket(Bucket=bucket)
    numbers = [n * 12_345_679 % 4_000_000_000 for n in range(150)] if "x" in name else range(150)
    for number in numbers:
        s3.put_object(Bucket=bucket, Key=f"p/{name.format(number)}", Body=b"")
    stretches, one = [], Bucket._stretch
    monkeypatch.setattr(
        Bucket,
        "_stretch",
        lambda self, prefix, *of: stretches.append([]) or _counted(one(self, prefix, *of), stretches[-1]),
    )
    assert listing(bucket, "p/") == peers_listing(s3, bucket, "p/")
    assert max(sum(pages) for pages in stretches) <= 75  # none has nearly all of it
    assert len(stretches) <= module.MAX_STRETCHES + 36


def _counted(pages, sizes: list[int]):
    for files in pages:
        sizes.append(len(files))
        yield files


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
    page = PAGE % ENTRY.format("a.jpg", "").encode()
    Awkward.answers = [(503, b"<Error><Code>SlowDown</Code></Error>"), (0, b""), (500, b"oops")]
    Awkward.answers += [(200, b"<Error><Code>InternalError</Code></Error>"), (200, b"<html>log in</html>")]
    Awkward.answers += [(200, page[:-30]), (200, page.replace(b"false", b"true")), (200, page)]
    assert [row[0] for row in listing("bucket", s3=awkward)] == ["s3://bucket/a.jpg"]
    assert Awkward.answers == []


def test_an_error_under_a_good_status_is_no_end_of_the_listing(awkward, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    Awkward.answers = [(200, b"<Error><Code>InternalError</Code><Message>again</Message></Error>")] * 2
    with pytest.raises(botocore.exceptions.ClientError, match="InternalError"):
        listing("bucket", s3=awkward)


@pytest.mark.parametrize("namespace", ["http://doc.s3.amazonaws.com/2006-03-01", "http://ceph.example/"])
def test_stores_that_answer_otherwise_are_understood(awkward, namespace):
    """Of another namespace; and keys that are not quoted, though that was asked for."""
    entries = "".join(ENTRY.format(key, "") for key in ("a+b.jpg", "100%41.jpg"))
    page = (PAGE % entries.encode()).replace(b"http://s3.amazonaws.com/doc/2006-03-01/", namespace.encode())
    Awkward.answers = [(200, page)]
    assert [row[0] for row in listing("bucket", s3=awkward)] == ["s3://bucket/a+b.jpg", "s3://bucket/100%41.jpg"]
    quoted = page.replace(b"<IsTruncated>", b"<EncodingType>url</EncodingType><IsTruncated>")
    Awkward.answers = [(200, quoted)]
    assert [row[0] for row in listing("bucket", s3=awkward)] == ["s3://bucket/a b.jpg", "s3://bucket/100A.jpg"]


def test_errors_tell_no_signature(awkward, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "KEYKEY",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "TOKEN",
    }.items():
        monkeypatch.setenv(name, value)
    Awkward.answers = [(0, b"")]
    with pytest.raises(botocore.exceptions.HTTPClientError) as caught:
        listing("bucket", s3=dataclasses.replace(awkward, anonymous=False))
    told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in ("KEYKEY", "TOKEN", "Signature") if secret in told]


def test_few_pages_wait_while_an_earlier_stretch_is_handed_out(s3, monkeypatch):
    for name, value in {"PAGES_AHEAD": 2, "STRETCHES_AHEAD": 3, "AT_ONCE": 2}.items():
        monkeypatch.setattr(module, name, value)
    bucket, made = Bucket(S3Options(), "bucket"), []
    monkeypatch.setattr(bucket, "_stretch", lambda *of: (made.append(of) or [of] for _ in range(9)))
    pages = bucket._side_by_side("", [(str(n), str(n + 1)) for n in range(12)])
    next(pages)
    time.sleep(0.5)
    assert len(made) <= 1 + 3 * (2 + 1)
    assert len(list(pages)) == 12 * 9 - 1


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
