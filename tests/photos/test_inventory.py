"""An inventory against listing the bucket."""

import gzip
import io
import json
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import UsageError
from geoloc.photos import partition
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source
from tests.photos.test_tars import tar

KEYS = [
    "z.jpg",
    "a/1.jpg",
    "a/1.jpg.xmp",
    'a/b/2 +é,".jpg',
    "a/b/",
    "a/c.txt",
    "a/100%25.png",
    "b/@eaDir/3.jpg",
    "cold.jpg",
]
COLUMNS = [
    "Bucket",
    "Key",
    "VersionId",
    "IsLatest",
    "IsDeleteMarker",
    "Size",
    "LastModifiedDate",
    "ETag",
    "StorageClass",
]


@pytest.fixture
def bucket(s3, tmp_path) -> str:
    name = f"inventoried-{abs(hash(str(tmp_path)))}"
    s3.create_bucket(Bucket=name)
    for key in KEYS:
        s3.put_object(Bucket=name, Key=key, Body=key.encode(), StorageClass="GLACIER" if "cold" in key else "STANDARD")
    return name


def objects(s3, bucket: str) -> list[dict]:
    """As S3 Inventory has them, with a version of before and a mark of deletion."""
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    rows = [
        {"Bucket": bucket, "Key": one["Key"], "VersionId": "v1", "IsLatest": True, "IsDeleteMarker": False}
        | {"Size": one["Size"], "LastModifiedDate": one["LastModified"], "ETag": one["ETag"].strip('"')}
        | {"StorageClass": one["StorageClass"]}
        for one in listed
    ]
    old, deleted = (
        dict(rows[0], IsLatest=False, ETag="old"),
        dict(rows[0], Key="gone.jpg", IsDeleteMarker=True, Size=None),
    )
    return [deleted, *rows[::-1], old]


def write(s3, bucket: str, form: str, **changes) -> str:
    """Two files of it, in the bucket itself; and its manifest's uri."""
    rows, files = objects(s3, bucket), []
    for number, some in enumerate((rows[::2], rows[1::2])):
        buffer = io.BytesIO()
        if form == "CSV":
            told = [
                {
                    "Key": quote_plus(row["Key"], safe="/"),
                    "LastModifiedDate": row["LastModifiedDate"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    "Size": "" if row["Size"] is None else row["Size"],
                }
                for row in some
            ]
            lines = [[str((row | more)[name]) for name in COLUMNS] for row, more in zip(some, told, strict=True)]
            text = "\n".join(",".join(f'"{value}"' for value in line) for line in lines)
            buffer.write(gzip.compress(text.encode()))
        else:
            names = ["bucket", "key", "version_id", "is_latest", "is_delete_marker", "size", "last_modified_date"]
            names += ["e_tag", "storage_class"]
            table = pa.Table.from_pylist(some).select(COLUMNS).rename_columns(names)
            pq.write_table(table, buffer)
        key = f"inventory/data/{form}-{number}"
        s3.put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())
        files.append({"key": key, "size": len(buffer.getvalue()), "MD5checksum": "x"})
    manifest = {"sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}", "version": "2016-11-30"}
    manifest |= {"fileFormat": form, "fileSchema": ", ".join(COLUMNS), "files": files} | changes
    s3.put_object(Bucket=bucket, Key="inventory/day/manifest.json", Body=json.dumps(manifest).encode())
    return f"s3://{bucket}/inventory/day/manifest.json"


def rows_of(source: Source) -> list[dict]:
    rows = pa.Table.from_batches(source.list()).to_pylist()
    return sorted(rows, key=lambda row: row["uri"])


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
@pytest.mark.parametrize("files", [1, 7])
def test_it_lists_what_the_bucket_lists(s3, bucket, form, files, monkeypatch):
    monkeypatch.setattr("geoloc.photos.inventory.files_for", lambda rows: files)
    expected = rows_of(Source(f"s3://{bucket}", options=ListingOptions(exclude=("inventory/*",))))
    source = Source(write(s3, bucket, form))
    found = rows_of(source)
    for row in (*found, *expected):
        row.pop("archived")  # of which an inventory does not tell whether it has been restored
    assert found == expected
    assert [row["uri"].removeprefix(f"s3://{bucket}/") for row in found] == sorted(
        key for key in KEYS if key.endswith((".jpg", ".png")) and "@eaDir" not in key
    )
    assert [row["sidecars"] for row in found if row["sidecars"]] == [[f"s3://{bucket}/a/1.jpg.xmp"]]
    assert (source.found.sidecars, dict(source.found.litter)) == (1, {"@eaDir": 1})
    assert source.tells_what_is_gone
    few = rows_of(Source(source.uri, options=ListingOptions(include=("a/*",))))
    assert [row["uri"] for row in few] == [row["uri"] for row in found if "/a/" in row["uri"]]


@pytest.mark.parametrize("files", [1, 5])
def test_of_a_tar_and_a_folder_of_its_name_the_folder_counts(s3, bucket, files, monkeypatch):
    monkeypatch.setattr("geoloc.photos.inventory.files_for", lambda rows: files)
    s3.put_object(Bucket=bucket, Key="t/s.tar", Body=tar({"x.jpg": b"in the tar"}))
    s3.put_object(Bucket=bucket, Key="t/s.tar/x.jpg", Body=b"beside it")
    found = [row for row in rows_of(Source(write(s3, bucket, "Parquet"))) if "/t/" in row["uri"]]
    assert [(row["uri"], row["container"]) for row in found] == [(f"s3://{bucket}/t/s.tar/x.jpg", None)]


def test_a_large_folder_comes_in_stretches(s3, bucket, monkeypatch):
    for number in range(40):
        s3.put_object(Bucket=bucket, Key=f"flat/{number:03d}.jpg", Body=b"")
    uri, sizes = write(s3, bucket, "Parquet"), []
    monkeypatch.setattr("geoloc.photos.sources.WINDOW", 10)
    photos_of = Source._photos_of
    monkeypatch.setattr(Source, "_photos_of", lambda self, files: sizes.append(len(files)) or photos_of(self, files))
    assert len([row for row in rows_of(Source(uri)) if "/flat/" in row["uri"]]) == 40
    assert max(sizes) <= 10


def test_who_may_not_ask_is_told_in_a_line(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UsageError, match=r"SOURCE s3://.*: cannot read it \(NoCredentials"):
        rows_of(Source(f"s3://{bucket}/inventory/day/manifest.json"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fileFormat": "ORC"}, "its lists are in ORC; have S3 write them in CSV or Parquet"),
        ({"files": 3}, "is no manifest of an S3 Inventory"),
        ({"files": [{"key": "nowhere"}]}, "cannot read its list s3://.*/nowhere"),
        ({"fileSchema": "Bucket, Size"}, "cannot read its list"),
    ],
)
def test_what_cannot_be_read_stops_it(s3, bucket, changes, reason):
    with pytest.raises(UsageError, match=rf"SOURCE s3://.*/manifest.json: {reason}"):
        rows_of(Source(write(s3, bucket, "CSV", **changes)))


def test_a_folder_of_parquet_files_is_a_table(tmp_path):
    folder = tmp_path / "photos.parquet" / "day=1"
    folder.mkdir(parents=True)
    for number in range(3):
        pq.write_table(
            pa.table({"uri": [f"s3://b/{number}.jpg"], "lat": [1.0 * number], "lon": [2.0]}),
            folder / f"{number}.parquet",
        )
    for uri in (str(tmp_path / "photos.parquet"), f"{tmp_path}/photos.parquet/"):
        assert [(row["uri"], row["lat"]) for row in rows_of(Source(uri))] == [(f"s3://b/{n}.jpg", n) for n in range(3)]


def test_a_partition_holds_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "BUFFER_ROWS", 10)
    schema = pa.schema({"uri": pa.string()})
    tables = [pa.table({"uri": [f"{n % 5}/{n}" for n in range(start, start + 7)]}) for start in range(0, 70, 7)]
    made = partition.Partition(tmp_path, "x", 3)
    made.fill(tables, schema, lambda uri: uri.split("/")[0])
    found = [table["uri"].to_pylist() for table in made.tables(schema)]
    assert sorted(uri for some in found for uri in some) == sorted(f"{n % 5}/{n}" for n in range(70))
    assert sum(len({uri.split("/")[0] for uri in some}) for some in found) == 5  # one key, one file
    assert list(tmp_path.iterdir()) == []
