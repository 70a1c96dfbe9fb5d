import http.server
import os
import threading
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import UsageError
from geoloc.photos import sources
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.selection import ListingOptions
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
    expected = [
        ".hidden.jpg",
        "a.JPG",
        "b.heic",
        "dangling.jpg",
        "empty.jpg",
        "link.jpg",
        "no-suffix",
        "été #1 100%.png",
    ]
    assert names == [*expected, "folder.jpg/inside.jpg", "sub/c.webp"]
    assert source.found.left_out == {".txt": 1}
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
    assert source.found.left_out == {}
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
    assert source.found.duplicates == 1


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


def names_below(root, **options) -> list[str]:
    source = Source(str(root), S3Options(), ListingOptions(**options))
    return [row["uri"].removeprefix(f"{root}/") for batch in source.list() for row in batch.to_pylist()]


def fill(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.rsplit("/", 1)[-1].encode())


def put(s3, bucket: str, *names: str) -> None:
    s3.create_bucket(Bucket=bucket)
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=name.rsplit("/", 1)[-1].encode())


LITTER = {
    "@eaDir/a.jpg": "@eaDir",
    "x/#recycle/a.jpg": "#recycle",
    ".Trash-1000/files/a.jpg": ".Trash",
    "x/.thumbnails/a.jpg": ".thumbnails",
    ".stversions/a.jpg": ".stversions",
    "__MACOSX/x/a.jpg": "__MACOSX",
    "x/._a.jpg": "._*",
    "x/.DS_Store": ".DS_Store",
    "x/Thumbs.db": "Thumbs.db",
    "Lib Previews.lrdata/0/a.jpg": "Lightroom previews",
}


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_litter_is_left_out_and_counted(where, tmp_path, s3):
    if where == "disk":
        root = tmp_path
        fill(root, "a.jpg", "x/b.jpg", *LITTER)
    else:
        root = "s3://litter"
        put(s3, "litter", "a.jpg", "x/b.jpg", *LITTER)
    rows, source = listed(root)
    assert sorted(row["uri"].removeprefix(f"{root}/") for row in rows) == ["a.jpg", "x/b.jpg"]
    assert source.found.litter == dict.fromkeys(LITTER.values(), 1)
    assert any("10 files left out as litter" in line for line in source.found.lines())
    everything = sum(name.endswith((".jpg", ".DS_Store")) for name in LITTER) + 2
    assert len(names_below(root, litter=True)) == everything


def test_takeouts_copies_in_albums_are_left_out(tmp_path):
    photos = tmp_path / "Takeout" / "Google Photos"
    fill(photos, "Photos from 2019/a.jpg", "Album/a.jpg", "Album/only-here.jpg", "Zoo/a.jpg")
    (photos / "Zoo" / "a.jpg").write_bytes(b"another photo of that name")
    for root in (tmp_path, photos):
        rows, source = listed(root)
        found = ["/".join(row["uri"].split("/")[-2:]) for row in rows]
        assert found == ["Photos from 2019/a.jpg", "Album/only-here.jpg", "Zoo/a.jpg"]
        assert source.found.litter == {"Takeout's copies in albums": 1}


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_sidecars_go_with_their_photos(where, tmp_path, s3):
    files = [
        "a.jpg",
        "a.jpg.xmp",
        "b.HEIC",
        "b.XMP",
        "c.jpg",
        "d/c.xmp",
        "e(1).jpg",
        "e.jpg",
        "e.jpg(1).json",
        "e.jpg.json",
    ]
    files += ["f-edited.jpg", "f.jpg", "f.jpg.supplemental-metadata.json", "g.jpg", "g.jpg.supplemental-meta.json"]
    files += ["metadata.json", "orphan.xmp", "z/0.jpg", "z.jpg", "z.jpg.xmp", f"{'l' * 60}.jpg", f"{'l' * 46}.json"]
    if where == "disk":
        root = str(tmp_path)
        fill(tmp_path, *files)
    else:
        root = "s3://beside"
        put(s3, "beside", *files)
    rows, source = listed(root)
    found = {row["uri"].removeprefix(f"{root}/"): row["sidecars"] or [] for row in rows}
    found = {name: [sidecar.removeprefix(f"{root}/") for sidecar in sidecars] for name, sidecars in found.items()}
    assert {name: sidecars for name, sidecars in found.items() if sidecars} == {
        "a.jpg": ["a.jpg.xmp"],
        "b.HEIC": ["b.XMP"],
        "e(1).jpg": ["e.jpg(1).json"],
        "e.jpg": ["e.jpg.json"],
        "f-edited.jpg": ["f.jpg.supplemental-metadata.json"],
        "f.jpg": ["f.jpg.supplemental-metadata.json"],
        "g.jpg": ["g.jpg.supplemental-meta.json"],
        "z.jpg": ["z.jpg.xmp"],
        f"{'l' * 60}.jpg": [f"{'l' * 46}.json"],
    }
    assert len(found) == 11
    assert source.found.sidecars == 9
    assert source.found.left_out == {".xmp": 2, ".json": 1}
    unread = Source(root, S3Options(), ListingOptions(sidecars=False))
    assert all(row["sidecars"] is None for batch in unread.list() for row in batch.to_pylist())
    assert (unread.found.sidecars, unread.found.sidecars_unread) == (0, 9)


def test_a_very_large_folder_of_a_bucket_is_paired_in_stretches(s3, monkeypatch):
    monkeypatch.setattr(sources, "WINDOW", 20)
    put(
        s3,
        "many",
        *(f"{n:03d}{end}" for n in range(50) for end in (".jpg", ".jpg.xmp", ".xmp")),
        "100/a.jpg",
        "100/a.xmp",
    )
    rows, source = listed("s3://many")
    assert len(rows) == len({row["uri"] for row in rows}) == 51
    assert source.found.sidecars == 101
    assert source.found.left_out == {}


def test_globs_limits_and_samples(tmp_path):
    fill(tmp_path, *(f"{year}/{n:03d}.jpg" for year in (2018, 2019) for n in range(100)))
    assert len(names_below(tmp_path, include=("2019/*",))) == 100
    assert names_below(tmp_path, include=("*/00[12].jpg", "2018/005.jpg"), exclude=("2019/*",)) == [
        "2018/001.jpg",
        "2018/002.jpg",
        "2018/005.jpg",
    ]
    assert names_below(tmp_path, limit=3) == ["2018/000.jpg", "2018/001.jpg", "2018/002.jpg"]
    sample = names_below(tmp_path, sample=20)
    assert (
        sample == sorted(sample) == names_below(tmp_path, sample=20) != names_below(tmp_path, sample=20, sample_seed=1)
    )
    assert [sum(name.startswith(year) for name in sample) for year in ("2018", "2019")] == [10, 10]
    assert len(names_below(tmp_path, sample=1000)) == 200


@given(st.integers(1, 40), st.integers(0, 3000))
@settings(deadline=None)
def test_a_sample_is_spread_evenly(count, total):
    chosen = [row["n"] for row in ListingOptions(sample=count).some({"n": n} for n in range(total))]
    assert len(chosen) == min(count, total)
    assert chosen == sorted(set(chosen))
    if total > 4 * count:
        assert max(b - a for a, b in zip([0, *chosen], [*chosen, total], strict=True)) <= 2.6 * total / count


def test_one_photo(tmp_path, s3):
    fill(tmp_path, "a.jpg", "a.xmp", "b.jpg")
    rows, _ = listed(tmp_path / "a.jpg")
    assert [(row["uri"], row["sidecars"]) for row in rows] == [(f"{tmp_path}/a.jpg", [f"{tmp_path}/a.xmp"])]
    put(s3, "one", "p/a.jpg", "p/a.jpg.xmp", "p/a.jpg.other/x.jpg", "p/ab.jpg")
    rows, _ = listed("s3://one/p/a.jpg")
    assert [(row["uri"], row["sidecars"]) for row in rows] == [("s3://one/p/a.jpg", ["s3://one/p/a.jpg.xmp"])]
    assert listed("s3://one/p/none.jpg")[0] == []
    put(s3, "one", "q/IMG_1-edited(2).jpg", "q/IMG_1.jpg(2).json", "q/IMG_10.jpg")
    rows, source = listed("s3://one/q/IMG_1-edited(2).jpg")
    assert [row["sidecars"] for row in rows] == [["s3://one/q/IMG_1.jpg(2).json"]]
    assert source.root == "s3://one/q"


def test_every_format_that_is_decoded_is_listed(tmp_path):
    fill(tmp_path, *(f"x{suffix}" for suffix in (".jfif", ".jpe", ".hif", ".jp2", ".apng", ".psd", ".mpo", ".JPG", "")))
    assert len(listed(tmp_path)[0]) == 9
    fill(tmp_path, "a.jxl", "b.CR2", "c.mov", "d.mov", "e.txt")
    _, source = listed(tmp_path)
    line = "5 files of other types left out: 2 .mov (video), 1 .cr2 (RAW), 1 .jxl (JPEG XL), 1 .txt"
    assert source.found.lines() == [line]


def test_archived_objects_are_told_by_the_listing(s3):
    s3.create_bucket(Bucket="cold")
    for kind in ("STANDARD", "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR"):
        s3.put_object(Bucket="cold", Key=f"{kind}.jpg", Body=b"x", StorageClass=kind)
    archived = {row["uri"].rsplit("/", 1)[-1]: row["archived"] for row in listed("s3://cold")[0]}
    assert archived == {"STANDARD.jpg": False, "GLACIER.jpg": True, "DEEP_ARCHIVE.jpg": True, "GLACIER_IR.jpg": False}


def test_names_that_are_no_utf8_and_accents_composed_otherwise(tmp_path):
    raw = os.path.join(os.fsencode(tmp_path), b"\xff\xe9.jpg")
    with open(raw, "wb") as file:
        file.write(b"raw")
    (tmp_path / unicodedata.normalize("NFD", "été.jpg")).write_bytes(b"summer")
    (tmp_path / "photos.csv").write_text(f"uri\n{unicodedata.normalize('NFC', 'été.jpg')}\n")
    fetcher = Fetcher(FetchOptions())
    rows, _ = listed(tmp_path)
    assert sorted(fetcher.get(row["uri"], row["size"], row["etag"]) for row in rows) == [b"raw", b"summer"]
    rows, _ = listed(tmp_path / "photos.csv")
    assert fetcher.get(rows[0]["uri"], rows[0]["size"], rows[0]["etag"]) == b"summer"


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path, "photos/a.jpg")
    assert [row["uri"] for row in listed("~/photos")[0]] == [f"{tmp_path}/photos/a.jpg"]
    (tmp_path / "photos.csv").write_text("uri\n~/photos/a.jpg\n")
    assert [row["uri"] for row in listed("~/photos.csv")[0]] == [f"{tmp_path}/photos/a.jpg"]


def test_relative_paths_of_submitted_jobs_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "session_1" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    fill(package, "photos/a.jpg")
    monkeypatch.chdir(package)
    with pytest.raises(UsageError, match=r"^photos: is a relative path.*Ray deletes; give s3://… or an absolute path"):
        listed("photos")
    assert len(listed(package / "photos")[0]) == 1


def test_what_cannot_be_listed_is_said(tmp_path, s3):
    (tmp_path / "bad.csv").write_text("thing,lat\nx.jpg,1\n")
    (tmp_path / "worse.csv").write_text("uri,lat,lon\nx.jpg,north,2\n")
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
