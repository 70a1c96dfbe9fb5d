import io
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import PhotoError
from geoloc.photos import images_in_tables as module
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.images_in_tables import TableImages
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source
from geoloc.storage import S3Options

PICTURES = [f"picture {n}".encode() * 50 for n in range(25)]


def parquet(shape: str) -> bytes:
    """25 photos in row groups of 10, as Hugging Face, img2dataset, and anybody else write them."""
    places = {"lat": [float(n) for n in range(25)], "lon": [10.0] * 25, "country": ["France"] * 25}
    if shape == "struct":
        images = [{"bytes": data, "path": f"deep/{n}.jpg" if n else None} for n, data in enumerate(PICTURES)]
        columns = {"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    elif shape == "jpg":
        columns = {"key": [f"{n:05d}" for n in range(25)], "jpg": pa.array(PICTURES, pa.large_binary())}
    else:
        columns = {"Image_Bytes": PICTURES}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns | places), buffer, row_group_size=10, compression="zstd")
    return buffer.getvalue()


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    """Its uri, and how to put a file there."""
    if request.param == "disk":
        return str(tmp_path), lambda name, data: (tmp_path / name).write_bytes(data)
    s3 = request.getfixturevalue("s3")
    s3.create_bucket(Bucket="tables")
    prefix = tmp_path.name
    return f"s3://tables/{prefix}", lambda name, data: s3.put_object(Bucket="tables", Key=f"{prefix}/{name}", Body=data)


def listed(source: Source) -> list[dict]:
    return pa.Table.from_batches(source.list()).to_pylist()


@pytest.mark.parametrize("shape", ["struct", "jpg", "bytes"])
def test_photos_in_a_table_are_listed_and_read(place, shape, monkeypatch):
    root, put = place
    put("photos.parquet", parquet(shape))
    rows, groups = listed(Source(f"{root}/photos.parquet")), []
    reading = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, n, c: groups.append(n) or reading(f, n, c))
    found = [one.data for _, one in Fetcher(FetchOptions(concurrency=8)).stream(rows)]
    assert found == PICTURES
    assert groups == [0, 1, 2]  # each once
    assert [(row["lat"], row["country"]) for row in rows] == [(float(n), "France") for n in range(25)]
    name = {"struct": "0000003/3.jpg", "jpg": "0000003", "bytes": "0000003"}[shape]
    assert rows[3]["uri"] == f"{root}/photos.parquet/{name}"
    assert len({row["uri"] for row in rows}) == 25
    few = listed(Source(f"{root}/photos.parquet", options=ListingOptions(include=("*/000000[12]*",))))
    assert [row["offset"] for row in few] == [1, 2]


def test_a_file_that_changed_is_said_to_have(place):
    root, put = place
    put("photos.parquet", parquet("jpg"))
    rows = listed(Source(f"{root}/photos.parquet"))
    put("photos.parquet", parquet("bytes"))
    [(_, found)] = Fetcher(FetchOptions()).stream(rows[:1])
    assert found.data.kind == "changed"


def test_several_files_are_one_source_and_each_row_group_is_read_by_one_thread(tmp_path, monkeypatch):
    folder = tmp_path / "set.parquet"
    folder.mkdir()
    for number in range(3):
        (folder / f"part-{number}.parquet").write_bytes(parquet("struct"))
    rows = listed(Source(str(folder)))
    assert len(rows) == 75
    assert len({row["uri"] for row in rows}) == 75
    images, groups = TableImages(S3Options()), []
    reading = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda f, n, c: groups.append(n) or reading(f, n, c))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda row: images.get(row["container"], row["offset"], row["etag"]), rows[:10]))
    assert (found, groups) == (PICTURES[:10], [0])


@pytest.mark.parametrize(
    ("row", "damage", "kind"),
    [
        (99, lambda path: None, "not_found"),
        (0, lambda path: path.unlink(), "not_found"),
        (0, lambda path: path.write_bytes(b"no parquet"), "corrupt"),
        (0, lambda path: pq.write_table(pa.table({"jpg": pa.array([None], pa.binary())}), path), "empty"),
        (0, lambda path: pq.write_table(pa.table({"x": [1]}), path), "not_found"),
    ],
)
def test_what_cannot_be_read_is_a_reason(tmp_path, row, damage, kind):
    path = tmp_path / "photos.parquet"
    path.write_bytes(parquet("jpg"))
    damage(path)
    with pytest.raises(PhotoError) as caught:
        TableImages(S3Options()).get(str(path), row, None)
    assert caught.value.kind == kind


def test_a_row_group_too_large_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "photos.parquet").write_bytes(parquet("jpg"))
    monkeypatch.setattr(module, "MOST_GROUP_BYTES", 100)
    with pytest.raises(PhotoError, match="its row group has"):
        TableImages(S3Options()).get(str(tmp_path / "photos.parquet"), 0, None)


def test_a_table_that_says_where_photos_are_is_read_for_that(tmp_path):
    pq.write_table(pa.table({"uri": ["/a.jpg"], "image": [b"thumbnail"]}), tmp_path / "photos.parquet")
    assert [row["uri"] for row in listed(Source(str(tmp_path / "photos.parquet")))] == ["/a.jpg"]
