import io
import tarfile

import pyarrow as pa
import pytest

from geoloc.errors import PhotoError
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source

MEMBERS = {
    "album/0001.jpg": b"one" * 500,
    "album/0001.json": b"{}",
    "album/" + "long" * 60 + ".jpg": b"two" * 1_000,
    "é/0003.jpg": b"three",
    "./0004.png": b"",
    "/../0005.jpg": b"five" * 400_000,
    "0006.mov": b"film",
    "__MACOSX/0007.jpg": b"litter",
}
PHOTOS = {
    "album/0001.jpg": MEMBERS["album/0001.jpg"],
    "album/" + "long" * 60 + ".jpg": b"two" * 1_000,
    "é/0003.jpg": b"three",
    "0004.png": b"",
    "0005.jpg": b"five" * 400_000,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path / "cache"))


def tar(members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"link{kind.decode()}.jpg")
            link.type, link.linkname = kind, "/etc/passwd"
            file.addfile(link)
    return buffer.getvalue()


def listed(source: Source) -> list[dict]:
    return pa.Table.from_batches(source.list()).to_pylist()


def fetched(rows: list[dict]) -> dict[str, bytes | str]:
    found = Fetcher(FetchOptions(concurrency=4)).stream(rows)
    return {row["uri"]: one.data.kind if isinstance(one.data, PhotoError) else one.data for row, one in found}


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """Its uri, and how to put a file there."""
    if request.param == "disk":
        folder = tmp_path / "photos"
        folder.mkdir()
        return str(folder), lambda name, data: (folder / name).write_bytes(data)
    s3 = request.getfixturevalue("s3")
    s3.create_bucket(Bucket="tars")
    prefix = tmp_path.name
    return f"s3://tars/{prefix}", lambda name, data: s3.put_object(Bucket="tars", Key=f"{prefix}/{name}", Body=data)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_photos_are_read_where_they_lie_in_tars(place, form):
    root, put = place
    put("a.jpg", b"beside")
    put("shard-0.tar", tar(MEMBERS, form))
    put("shard-1.TAR", tar({"x.jpg": b"x" * 600}, form))
    source = Source(root)
    photos = {f"{root}/a.jpg": b"beside", f"{root}/shard-1.TAR/x.jpg": b"x" * 600}
    photos |= {f"{root}/shard-0.tar/{name}": data or "empty" for name, data in PHOTOS.items()}
    assert fetched(listed(source)) == photos
    assert (dict(source.found.left_out), dict(source.found.litter)) == ({".json": 1, ".mov": 1}, {"__MACOSX": 1})
    one = Source(f"{root}/shard-0.tar", options=ListingOptions(exclude=("album/*",)))
    assert [row["uri"].removeprefix(one.root + "/") for row in listed(one)] == ["é/0003.jpg", "0004.png", "0005.jpg"]


def test_headers_are_read_once_for_a_version_of_a_tar(place, monkeypatch):
    root, put = place
    put("a.tar", tar({"x.jpg": b"1", "y.jpg": b"2"}))
    changed = tar({"x.jpg": b"1", "y.jpg": b"3"}) + bytes(1024)
    first, opened = listed(Source(root)), []
    monkeypatch.setattr(
        tarfile, "open", lambda *args, **kwargs: opened.append(1) or tarfile.TarFile.open(*args, **kwargs)
    )
    assert (listed(Source(root)), opened) == (first, [])
    put("a.tar", changed)
    again = listed(Source(root))
    assert len(opened) == 1
    assert fetched(first) == dict.fromkeys([f"{root}/a.tar/x.jpg", f"{root}/a.tar/y.jpg"], "changed")
    assert fetched(again)[f"{root}/a.tar/y.jpg"] == b"3"


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar({"x.jpg": b"old", "y.jpg": b"2", "./x.jpg": b"new"}))
    assert fetched(listed(Source(str(tmp_path)))) == {
        f"{tmp_path}/a.tar/y.jpg": b"2",
        f"{tmp_path}/a.tar/x.jpg": b"new",
    }


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda data: data[:2_000], ["x.jpg"]),
        (lambda data: data[:1_536] + b"\xff" * 512 + data[2_048:], ["x.jpg"]),
        (lambda data: b"no tar" * 200, []),
        (lambda data: b"", []),
    ],
)
def test_of_a_damaged_tar_what_stands_before_is_listed(place, damage, left):
    root, put = place
    put("a.tar", damage(tar({"x.jpg": b"1" * 600, "y.jpg": b"2" * 600, "z.jpg": b"3"})))
    put("b.tar", tar({"w.jpg": b"4"}))
    source = Source(root)
    rows = listed(source)
    assert [row["uri"].removeprefix(f"{root}/") for row in rows] == [*(f"a.tar/{n}" for n in left), "b.tar/w.jpg"]
    assert not source.tells_what_is_gone
    assert [f"only {len(left)} files" in note for note in source.found.notes] == [True]
