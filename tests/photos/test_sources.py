import http.server
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import UsageError
from geoloc.photos.sources import Source
from geoloc.storage import S3Options


def listed(uri, **options) -> tuple[list[dict], Source]:
    source = Source(str(uri), S3Options(**options))
    return [row for batch in source.list() for row in batch.to_pylist()], source


def test_a_folder_with_everything_odd(tmp_path):
    for name in ("a.JPG", "b.heic", "été #1 100%.png", ".hidden.jpg", "notes.txt", "no-suffix", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "inside.jpg").write_bytes(b"xy")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.JPG")
    rows, source = listed(tmp_path)
    names = [row["uri"].removeprefix(f"{tmp_path}/") for row in rows]
    expected = [".hidden.jpg", "a.JPG", "b.heic", "dangling.jpg", "empty.jpg", "link.jpg", "été #1 100%.png"]
    assert names == [*expected, "folder.jpg/inside.jpg", "sub/c.webp"]
    assert source.left_out == 2
    sizes = dict(zip(names, (row["size"] for row in rows), strict=True))
    assert sizes["empty.jpg"] == 0
    assert sizes["dangling.jpg"] is None
    assert sizes["folder.jpg/inside.jpg"] == 2


def test_a_bucket_is_listed_page_by_page_without_a_request_a_photo(s3):
    s3.create_bucket(Bucket="listing")
    for i in range(1005):
        s3.put_object(Bucket="listing", Key=f"photos/{i:04d}.jpg", Body=b"x")
    s3.put_object(Bucket="listing", Key="photos/a b/ü#%20//x.jpg", Body=b"xyz")
    s3.put_object(Bucket="listing", Key="photos/", Body=b"")
    s3.put_object(Bucket="listing", Key="photos-of-others/0.jpg", Body=b"")
    rows, source = listed("s3://listing/photos")
    assert len(rows) == 1006
    assert source.left_out == 1
    odd = next(row for row in rows if "ü" in row["uri"])
    assert odd["uri"] == "s3://listing/photos/a b/ü#%20//x.jpg"
    assert (odd["size"], odd["etag"]) == (3, s3.head_object(Bucket="listing", Key="photos/a b/ü#%20//x.jpg")["ETag"])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_uris(tmp_path, kind):
    path = tmp_path / f"photos.{kind}"
    columns = {
        "uri": ["x.jpg", "s3://bucket/y#.jpg", "/abs/z.jpg", "x.jpg"],
        "lat": [1.5, None, 3.0, 4.0],
        "lon": [2.5, None, 4.0, 5.0],
        "city": ["Rome", None, None, None],
    }
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        import pandas as pd

        pd.DataFrame(columns).to_csv(path, index=False)
    rows, source = listed(path)
    assert [row["uri"] for row in rows] == [f"{tmp_path}/x.jpg", "s3://bucket/y#.jpg", "/abs/z.jpg"]
    assert [row["lat"] for row in rows] == [1.5, None, 3.0]
    assert rows[0]["city"] == "Rome"
    assert source.duplicates == 1


def test_wrong_keys_are_told_from_missing_rights(monkeypatch):
    class Refusing(http.server.BaseHTTPRequestHandler):
        code = ""

        def do_GET(self):
            body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        cases = {"InvalidAccessKeyId": "access key is not known", "SignatureDoesNotMatch": "secret key is wrong"}
        for code, message in (cases | {"AccessDenied": "may not list it"}).items():
            Refusing.code = code
            with pytest.raises(UsageError, match=message) as caught:
                listed("s3://bucket/x", endpoint=endpoint, region="us-east-1")
            assert "very-secret" not in str(caught.value)
        server.shutdown()


def test_what_cannot_be_listed_is_said(tmp_path, s3):
    (tmp_path / "bad.csv").write_text("path,lat\nx.jpg,1\n")
    (tmp_path / "worse.csv").write_text("uri,lat\nx.jpg,north\n")
    cases = {
        tmp_path / "nowhere": "no such folder",
        tmp_path / "bad.csv": "no column `uri`",
        tmp_path / "worse.csv": "column `lat`",
        tmp_path / "none.parquet": "cannot read",
        "s3://no-such-bucket-here/x": "no such bucket",
    }
    for uri, message in cases.items():
        with pytest.raises(UsageError, match=message):
            listed(uri)
    with pytest.raises(UsageError, match=r"--s3\.profile nobody"):
        listed("s3://bucket/x", profile="nobody")
