import functools
import http.server
import posixpath
import socket
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geoloc.errors import PhotoError
from geoloc.photos.fetch import Fetcher, FetchOptions, credentials_of
from geoloc.photos.metadata import Sidecar
from geoloc.photos.sources import Source
from geoloc.storage import S3Options, local_etag


class FaultyS3(http.server.BaseHTTPRequestHandler):
    """The key says what goes wrong."""

    seen: Counter = Counter()
    methods: Counter = Counter()
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.methods["HEAD"] += 1
        self.send_error(405)

    def do_GET(self):
        self.methods["GET"] += 1
        if key := self.headers.get("x-amz-request-payer"):
            self.methods[key] += 1
        key = self.path.rsplit("/", 1)[-1]
        self.seen[key] += 1
        if key.startswith("throttled") and self.seen[key] <= 2:
            return self._answer(503, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>")
        if key.startswith("reset") and self.seen[key] <= 1:
            return self._hang_up()
        if key.startswith("cut") and self.seen[key] <= 1:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            self.wfile.flush()
            return self._hang_up()
        if key.startswith("down"):
            return self._answer(503, b"<Error><Code>SlowDown</Code></Error>")
        if key.startswith("forbidden"):
            return self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        if key.startswith("frozen"):
            return self._answer(
                403, b"<Error><Code>InvalidObjectState</Code><StorageClass>GLACIER</StorageClass></Error>"
            )
        if key.startswith("sealed"):
            return self._answer(
                403, b"<Error><Code>AccessDenied</Code><Message>may not kms:Decrypt it</Message></Error>"
            )
        if key.startswith("expired"):
            return self._answer(400, b"<Error><Code>ExpiredToken</Code></Error>")
        if key.startswith("disabled"):
            return self._answer(400, b"<Error><Code>KMS.DisabledException</Code></Error>")
        if key.startswith("missing"):
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        if self.headers.get("If-Match") not in (None, '"v1"'):
            return self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if key.startswith("slow"):
            time.sleep(0.2)
        return self._answer(200, b"x" * 100_000 if key.startswith("large") else f"bytes of {key}".encode())

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"v1"')
        self.send_header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def fetcher():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FaultyS3)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3 = S3Options(endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1", anonymous=True)
    yield Fetcher(FetchOptions(max_bytes=50_000, concurrency=8, attempts=3, retry_s=5, s3=s3))
    server.shutdown()


@pytest.mark.parametrize("key", ["plain", "throttled", "reset", "cut"])
def test_passing_trouble_is_retried(fetcher, key):
    assert fetcher.get(f"s3://bucket/{key}") == f"bytes of {key}".encode()


@pytest.mark.parametrize("key", ["plain", "odd//plain"])
def test_who_pays_for_requests_says_so_with_each(fetcher, key, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    before = FaultyS3.methods["requester"]
    fetcher.get(f"s3://bucket/{key}")
    assert FaultyS3.methods["requester"] == before
    s3 = replace(fetcher._options.s3, requester_pays=True, anonymous=False)
    Fetcher(FetchOptions(s3=s3)).get(f"s3://bucket/{key}")
    assert FaultyS3.methods["requester"] == before + 1


LASTING = {
    "missing": "not_found",
    "forbidden": "forbidden",
    "expired": "forbidden",
    "frozen": "archived",
    "sealed": "kms",
    "disabled": "kms",
    "down": "throttled",
    "large": "too_large",
}


@pytest.mark.parametrize(("key", "kind"), LASTING.items())
def test_lasting_trouble_has_a_kind(fetcher, key, kind):
    with pytest.raises(PhotoError) as caught:
        fetcher.get(f"s3://bucket/{key}")
    assert caught.value.kind == kind
    assert "Debug source" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize(("key", "kind"), [item for item in LASTING.items() if item[0] != "down"])
def test_odd_keys_have_the_same_kinds_of_trouble(fetcher, key, kind):
    with pytest.raises(PhotoError) as caught:
        fetcher.get(f"s3://bucket/odd//{key}")
    assert caught.value.kind == kind
    assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize("key", ["plain", "odd//plain"])
def test_where_a_store_is_that_does_not_answer_is_not_told(key):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        s3 = S3Options(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", region="us-east-1", anonymous=True)
        with pytest.raises(PhotoError) as caught:
            Fetcher(FetchOptions(attempts=1, retry_s=1, s3=s3)).get(f"s3://bucket/{key}")
    assert caught.value.kind == "network"
    assert "127.0.0.1" not in caught.value.message


def test_an_object_that_is_not_the_listed_one_is_changed(fetcher):
    assert fetcher.get("s3://bucket/plain", 14, '"v1"') == b"bytes of plain"
    with pytest.raises(PhotoError) as caught:
        fetcher.get("s3://bucket/plain", 14, '"v0"')
    assert caught.value.kind == "changed"


def test_one_request_a_photo_and_none_for_what_the_manifest_rules_out(fetcher):
    FaultyS3.methods.clear()
    fetcher.get("s3://bucket/counted", 16, '"v1"')
    for size, kind in ((0, "empty"), (50_001, "too_large")):
        with pytest.raises(PhotoError) as caught:
            fetcher.get("s3://bucket/counted", size, '"v1"')
        assert caught.value.kind == kind
    assert FaultyS3.methods == {"GET": 1}


def test_stream_keeps_the_order_fetches_side_by_side_and_fails_singly(fetcher):
    keys = [f"slow{i}" for i in range(8)]
    keys[3] = "missing3"
    photos = [{"uri": f"s3://bucket/{key}", "size": None, "etag": None} for key in keys]
    start = time.perf_counter()
    results = list(fetcher.stream(photos))
    assert time.perf_counter() - start < 8 * 0.2
    assert [photo["uri"] for photo, _ in results] == [photo["uri"] for photo in photos]
    assert isinstance(results[3][1].data, PhotoError)
    assert [r.data for i, (_, r) in enumerate(results) if i != 3] == [
        f"bytes of {k}".encode() for k in keys if k != "missing3"
    ]


def test_look_ahead_is_bounded_in_bytes(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(bytes(1000))
    fetcher = Fetcher(FetchOptions(concurrency=6, look_ahead_bytes=2_500))
    taken = []

    def photos():
        for i in range(6):
            taken.append(i)
            yield {"uri": str(tmp_path / f"{i}.jpg"), "size": 1000, "etag": None}

    stream = fetcher.stream(photos())
    next(stream)
    assert len(taken) == 3
    assert len(list(stream)) == 5


@pytest.mark.parametrize(
    "name", ["a b.jpg", "ü.jpg", "50%.jpg", "a%20b.jpg", "#1.jpg", "q?.jpg", "日本.jpg", "a+b.jpg"]
)
def test_local_names_are_taken_as_they_are(tmp_path, name):
    (tmp_path / name).write_bytes(b"data")
    assert Fetcher(FetchOptions()).get(str(tmp_path / name)) == b"data"


def test_local_trouble(tmp_path):
    fetcher = Fetcher(FetchOptions(max_bytes=10))
    path = tmp_path / "x.jpg"
    path.write_bytes(b"data")
    etag = local_etag(path.stat())
    assert fetcher.get(str(path), 4, etag) == b"data"
    path.write_bytes(b"other")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "big.jpg").write_bytes(bytes(11))
    cases = {str(path): "changed", str(tmp_path / "no.jpg"): "not_found", str(tmp_path): "forbidden"}
    for uri, kind in (cases | {str(tmp_path / "empty.jpg"): "empty", str(tmp_path / "big.jpg"): "too_large"}).items():
        with pytest.raises(PhotoError) as caught:
            fetcher.get(uri, None, etag if kind == "changed" else None)
        assert caught.value.kind == kind


def test_other_addresses_are_never_fetched():
    with pytest.raises(PhotoError) as caught:
        Fetcher(FetchOptions()).get("http://127.0.0.1/secret.jpg")
    assert caught.value.kind == "forbidden"


def test_keys_that_the_fast_client_refuses(s3):
    s3.create_bucket(Bucket="odd-keys")
    keys = ["double//slash.jpg", "a b/é#1 50%.jpg", "q?.jpg", "plus+.jpg", "back\\slash.jpg"]
    for key in keys:
        s3.put_object(Bucket="odd-keys", Key=key, Body=key.encode())
    fetcher = Fetcher(FetchOptions())
    for key in keys:
        assert fetcher.get(f"s3://odd-keys/{key}") == key.encode()
    with pytest.raises(PhotoError) as caught:
        fetcher.get("s3://odd-keys/no//thing.jpg")
    assert caught.value.kind == "not_found"


def test_what_is_archived_is_not_asked_for(fetcher):
    FaultyS3.methods.clear()
    photo = {"uri": "s3://bucket/cold", "size": 4, "etag": None, "archived": True}
    ((_, fetched),) = fetcher.stream([photo])
    assert fetched.data.kind == "archived"
    assert FaultyS3.methods == {}


def test_sidecars_come_with_the_photo(fetcher):
    sidecars = ["s3://bucket/plain.xmp", "s3://bucket/missing.json"]
    ((_, fetched),) = fetcher.stream([{"uri": "s3://bucket/plain", "size": 14, "etag": None, "sidecars": sidecars}])
    assert fetched.data == b"bytes of plain"
    assert fetched.sidecars == (Sidecar("plain.xmp", b"bytes of plain.xmp"), Sidecar("missing.json", None))


PIECES = st.one_of(  # without line feeds, which moto answers with 404
    st.sampled_from(
        ["", ".", "..", "a", "a ", " a", "%2F", "%20", "+", "#", "?", "&", "~", "a.jpg", "ü", "u\u0308", "\\", "*"]
    ),
    st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF, exclude_characters="/\n"), min_size=1, max_size=5),
)


@given(st.lists(PIECES, min_size=1, max_size=4).map("/".join).filter(bool))
@settings(max_examples=80, deadline=None)
@example("/a")
@example("a/")
@example("a//b")
@example("./a")
@example("a/../b")
@example("a%2Fb")
@example("a ")
def test_keys_reach_the_store_as_they_are(s3, key):
    """Every key that a client may have put brings its own bytes, never another's."""
    if "odd-keys" not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket="odd-keys")
    s3.put_object(Bucket="odd-keys", Key=key, Body=f"bytes of {key}".encode())
    for other in {key.strip("/"), posixpath.normpath(key), urllib.parse.unquote(key), key.strip()} - {key, "", "."}:
        s3.put_object(Bucket="odd-keys", Key=other, Body=b"another's")
    fetcher = _odd_keys_fetcher()
    assert fetcher.get(f"s3://odd-keys/{key}") == f"bytes of {key}".encode()


def test_odd_keys_are_listed_as_they_are(s3):
    s3.create_bucket(Bucket="listed-keys")
    keys = {
        "/a.jpg",
        "a.jpg",
        "a//b.jpg",
        "./a.jpg",
        "a/../b.jpg",
        "a%2Fb.jpg",
        "a b .jpg",
        "ü.jpg",
        "u\u0308.jpg",
        "a+b.jpg",
    }
    for key in keys:
        s3.put_object(Bucket="listed-keys", Key=key, Body=key.encode())
    rows = [row for batch in Source("s3://listed-keys").list() for row in batch.to_pylist()]
    assert {row["uri"] for row in rows} == {f"s3://listed-keys/{key}" for key in keys}
    got = {row["uri"]: fetched.data.decode() for row, fetched in _odd_keys_fetcher().stream(rows)}
    assert all(uri == f"s3://listed-keys/{data}" for uri, data in got.items())


@functools.cache
def _odd_keys_fetcher() -> Fetcher:
    return Fetcher(FetchOptions())


def test_credentials_are_asked_for_anew_before_they_expire(monkeypatch):
    """botocore changes them ten minutes before, and whoever asks it has the new ones."""
    asked = []

    def refresh() -> dict:
        asked.append(1)
        expires = (datetime.now(UTC) + timedelta(minutes=20)).isoformat()
        return {"access_key": f"key-{len(asked)}", "secret_key": "s", "token": "t", "expiry_time": expires}

    own = RefreshableCredentials.create_from_metadata(refresh(), refresh, "test")
    monkeypatch.setattr(boto3.session.Session, "get_credentials", lambda self: own)
    provider = credentials_of(S3Options())
    first = provider()
    assert first["access_key_id"] == "key-1"
    assert first["expires_at"] - datetime.now(UTC) < timedelta(minutes=10)
    own._expiry_time = datetime.now(UTC) + timedelta(minutes=9)  # eleven minutes later
    assert provider()["access_key_id"] == "key-2"
