"""Every way in which a job reaches S3, against one awkward store: all ask the same host with the same key, and wait for it."""

import http.client
import http.server
import io
import json
import re
import threading
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import PhotoError
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.sources import Source
from geoloc.storage import Folder, S3Options
from tests.photos.test_tars import tar

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Awkward(http.server.BaseHTTPRequestHandler):
    """Says of everything that it is busy when it is asked for the first time, and notes who asked."""

    protocol_version = "HTTP/1.1"
    behind = ""
    asked: list[tuple[str, str, str, str]] = []
    known: set[tuple[str, str]] = set()

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = self.headers.get("Authorization") or self.path
        key = re.search(r"Credential=([^/%&]+)", told)
        self.asked.append((self.command, self.path, self.headers["Host"], key[1] if key else ""))
        what = self.command, self.path.split("?")[0]
        if what not in self.known:
            self.known.add(what)
            self._answer(503, {}, BUSY)
            return
        connection = http.client.HTTPConnection(self.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "connection")
        }
        self._answer(answer.status, kept, data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        names = {name.lower() for name in headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in names:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


for _method in ("GET", "PUT", "HEAD", "POST", "DELETE"):
    setattr(Awkward, f"do_{_method}", Awkward._any)


@pytest.fixture
def awkward(s3, monkeypatch) -> S3Options:
    Awkward.behind = urlsplit(s3.meta.endpoint_url).netloc
    Awkward.asked, Awkward.known = [], set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Awkward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "TELLTALE")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    yield S3Options(endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1")
    server.shutdown()


def test_all_ask_the_same_store_with_the_same_key_and_wait_for_it(s3, awkward, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path))
    s3.create_bucket(Bucket="one")
    table = io.BytesIO()
    pq.write_table(pa.table({"jpg": [b"in a table"]}), table)
    objects = {"p/plain.jpg": b"plain", "p/ odd/./x.jpg": b"odd", "p/a.tar": tar({"y.jpg": b"in a tar"})}
    objects |= {"p/plain.jpg.xmp": b"beside", "t.parquet": table.getvalue()}
    for key, data in objects.items():
        s3.put_object(Bucket="one", Key=key, Body=data)
    listed = [row for uri in ("s3://one/p", "s3://one/t.parquet") for row in _rows(Source(uri, awkward))]
    found = {row["uri"].rsplit("/", 1)[-1]: one for row, one in Fetcher(FetchOptions(s3=awkward)).stream(listed)}
    assert not [one.data for one in found.values() if isinstance(one.data, PhotoError)]
    assert {name: one.data for name, one in found.items()} == {
        **{"plain.jpg": b"plain", "x.jpg": b"odd", "y.jpg": b"in a tar", "0000000": b"in a table"}
    }
    assert found["plain.jpg"].sidecars[0].data == b"beside"

    run = Folder("s3://one/run", awkward)
    run.write("run.json", b"{}")
    assert run.create("lease.json", b"1")
    assert not run.create("lease.json", b"2")
    assert (json.loads(run.read("run.json")), run.names(), run.exists("nowhere")) == (
        {},
        ["lease.json", "run.json"],
        False,
    )
    run.delete("run.json")
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    run.upload(tmp_path / "large", "large.bin")
    assert run.filesystem.size(run.path("large.bin")) == 1 << 20

    assert {host for _, _, host, _ in Awkward.asked} == {urlsplit(awkward.endpoint).netloc}
    assert {key for _, _, _, key in Awkward.asked} == {"TELLTALE"}
    refused = [
        what
        for what in Awkward.known
        if len([1 for m, path, *_ in Awkward.asked if (m, path.split("?")[0]) == what]) < 2
    ]
    assert refused == []  # each was asked for again


def _rows(source: Source) -> list[dict]:
    return pa.Table.from_batches(source.list()).to_pylist()
