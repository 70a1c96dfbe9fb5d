import io
import tarfile
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.errors import PhotoError
from geoloc.photos import tars
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
    headers = tars._headers
    monkeypatch.setattr(tars, "_headers", lambda *of: opened.append(1) or headers(*of))
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
        (lambda data: data[:1_536], ["x.jpg"]),
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
    assert f"only {len(left)} files" in source.found.notes[0]


def header(name: bytes, size: bytes, kind: bytes = b"0", prefix: bytes = b"") -> bytes:
    block = bytearray(512)
    for at, value in {0: name, 124: size, 148: b" " * 8, 156: kind, 257: b"ustar\x0000", 345: prefix}.items():
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(number: int) -> bytes:
    return b"%011o\0" % number


def binary(number: int) -> bytes:
    return (b"\x80" if number >= 0 else b"\xff") + (number % 256**11).to_bytes(11, "big")


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(b"pax", octal(len(body)), b"x") + body + bytes(-len(body) % 512)


GOOD, DATA, END = header(b"good.jpg", octal(3)), b"abc" + bytes(509), bytes(1_024)


@pytest.mark.parametrize(
    ("odd", "names"),
    [
        (header("é.jpg".encode("latin1"), octal(3)) + DATA, ["\\udce9.jpg", "last.jpg"]),
        (pax(b"14 path=\xe9.jpg\n") + header(b"x.jpg", octal(3)) + DATA, ["\\udce9.jpg", "last.jpg"]),
        (header(b"x.jpg", octal(3), prefix=b"deep/er") + DATA, ["deep/er/x.jpg", "last.jpg"]),
        (header(b"x.jpg", binary(3)) + DATA, ["x.jpg", "last.jpg"]),
        (END + header(b"x.jpg", octal(3)) + DATA, ["x.jpg", "last.jpg"]),  # as by cat a.tar b.tar
        (pax(b"8 size=\n") + header(b"x.jpg", octal(3)) + DATA, ["x.jpg", "last.jpg"]),
        (header(b"x.jpg", b"0000003\0junk") + DATA, ["x.jpg", "last.jpg"]),
        (header(b"x/", octal(3), b"5") + header(b"y.jpg", octal(3), b"2"), ["last.jpg"]),
        (header(b"x.jpg", binary(-1)), []),
        (header(b"x.jpg", binary(-512)), []),
        (header(b"x.jpg", b"-0000000001\0"), []),
        (header(b"x.jpg", binary(2**70)), []),
        (header(b"x.jpg", binary(2**70), b"Z"), []),
        (pax(b"14 size=-2048\n") + header(b"x.jpg", octal(3)) + DATA, []),
        (pax(b"1" * 100_000), []),
        (header(b"pax", octal(1 << 30), b"x"), []),
        (header(b"././@LongLink", octal(4), b"L") + DATA, ["abc"]),
        (pax(b"13 comment=x\n") * 2_000, ["last.jpg"]),
        ((header(b"././@LongLink", octal(4), b"L") + DATA) * 2_000, ["abc"]),
    ],
)
def test_hostile_and_odd_tars_end_the_listing_of_themselves_alone(tmp_path, odd, names):
    (tmp_path / "a.tar").write_bytes(GOOD + DATA + odd + header(b"last.jpg", octal(3)) + DATA + END)
    (tmp_path / "b.tar").write_bytes(tar({"w.jpg": b"4"}))
    source, start = Source(str(tmp_path)), time.monotonic()
    rows = listed(source)
    assert time.monotonic() - start < 2
    found = [row["uri"].removeprefix(f"{tmp_path}/a.tar/") for row in rows if "/a.tar/" in row["uri"]]
    assert (found, rows[-1]["uri"]) == (["good.jpg", *names], f"{tmp_path}/b.tar/w.jpg")
    assert set(fetched(rows).values()) <= {b"abc", b"4"}


@given(st.dictionaries(st.text("ab/é. \n", min_size=1, max_size=120), st.binary(max_size=2_000), max_size=6))
@settings(max_examples=60, deadline=None)
def test_members_are_where_tarfile_finds_them(members):
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = tar(members, form)
        with tarfile.open(fileobj=io.BytesIO(data)) as peer:
            expected = [(one.name.rstrip("/"), one.size, one.offset_data) for one in peer if one.isreg()]
        ours = tars._headers(io.BytesIO(data), len(data))
        assert [(h.name.rstrip("/"), h.size, h.offset) for h in ours if h.kind in tars._FILES] == expected


def test_what_stands_behind_the_end_is_nobodys(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + DATA + END + b"\xffjunk" * 1_000)
    source = Source(str(tmp_path))
    assert [row["uri"] for row in listed(source)] == [f"{tmp_path}/a.tar/good.jpg"]
    assert source.tells_what_is_gone


def test_links_are_counted_and_a_folder_of_a_tars_name_goes_before_it(s3):
    s3.create_bucket(Bucket="alike")
    s3.put_object(Bucket="alike", Key="p/s.tar", Body=tar({"x.jpg": b"in the tar"}))
    s3.put_object(Bucket="alike", Key="p/t.tar", Body=tar({"y.jpg": b"1"}))
    s3.put_object(Bucket="alike", Key="p/s.tar/x.jpg", Body=b"beside it")
    source = Source("s3://alike/p")
    assert fetched(listed(source)) == {"s3://alike/p/s.tar/x.jpg": b"beside it", "s3://alike/p/t.tar/y.jpg": b"1"}
    assert source.found.notes == [
        "s3://alike/p/s.tar: 2 links or sparse files in it are left out",
        "s3://alike/p/s.tar: is left out, because there is a folder of the same name",
        "s3://alike/p/t.tar: 2 links or sparse files in it are left out",
    ]


def test_a_size_below_none_is_no_size():
    [(_, found)] = Fetcher(FetchOptions()).stream([{"uri": "/etc/hostname", "size": -1, "etag": None}])
    assert found.data.kind == "empty"
