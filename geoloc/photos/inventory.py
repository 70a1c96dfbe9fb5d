"""S3 Inventory as a source: the list of a bucket's objects that S3 writes by itself, day by day, read instead of listing the bucket
a thousand keys at a time.

What is named is its ``manifest.json``, which names the files that the list is in, as CSV or Parquet, and their columns
(Amazon S3 User Guide, "Locating your inventory list"). They are in no order, so they are put into one on disk, folder by folder.
"""

import functools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import unquote_plus

import botocore.exceptions
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from geoloc.columns import plain
from geoloc.errors import UsageError
from geoloc.photos.partition import Partition, files_for
from geoloc.photos.tars import SUFFIX
from geoloc.storage import Folder, S3Options, describe

NAME = "manifest.json"
FORMATS = ("CSV", "Parquet")
ROW_BYTES = 24
"""Of a compressed file, a row, at least."""
OBJECT = pa.schema(
    {"uri": pa.large_string(), "size": pa.int64(), "etag": pa.string(), "modified": pa.timestamp("us", "UTC")}
)


def is_inventory(uri: str) -> bool:
    return uri.startswith("s3://") and uri.rsplit("/", 1)[-1] == NAME


@dataclass(frozen=True)
class Inventory:
    uri: str
    bucket: str
    """That it is of."""
    format: str
    columns: list[str]
    """Of its files, where they do not tell themselves."""
    files: list[str]
    """Their keys."""
    size: int
    """Bytes of all files."""
    destination: Folder
    """The bucket that they are in."""

    @classmethod
    def open(cls, uri: str, s3: S3Options) -> Self:
        """Raises UsageError."""
        folder, name = Folder(uri, s3).parent()
        try:
            told = json.loads(folder.read(name))
            files = [entry["key"] for entry in told["files"]]
            size = sum(entry.get("size", 0) for entry in told["files"])
            destination = Folder(f"s3://{told['destinationBucket'].rpartition(':')[2]}", s3)
            columns = [column.strip() for column in told["fileSchema"].split(",")]
            found = cls(uri, told["sourceBucket"], told["fileFormat"], columns, files, size, destination)
        except (OSError, botocore.exceptions.BotoCoreError) as error:
            raise UsageError(f"SOURCE {uri}: cannot read it ({describe(error)})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"SOURCE {uri}: is no manifest of an S3 Inventory ({describe(error)})") from error
        if found.format not in FORMATS:
            raise UsageError(f"SOURCE {uri}: its lists are in {found.format}; have S3 write them in CSV or Parquet")
        return found

    def objects(self, like_tars: set[str]) -> Iterator[dict]:
        """Rows of LISTING, folder by folder, each in the order of its keys; ``like_tars`` gets the folders that are called like a tar,
        before any. Raises UsageError where a list cannot be read."""
        with tempfile.TemporaryDirectory(prefix="geoloc-inventory-") as scratch:
            partition = Partition(Path(scratch), "objects", files_for(self.size // ROW_BYTES))
            partition.fill(self._noting(like_tars), OBJECT, _folder_of)
            for table in partition.tables(OBJECT):
                folder = pc.replace_substring_regex(table["uri"], r"/[^/]*$", "")
                order = table.append_column("folder", folder).sort_by([("folder", "ascending"), ("uri", "ascending")])
                for batch in order.drop_columns(["folder"]).to_batches(8_192):
                    yield from batch.to_pylist()

    def _noting(self, like_tars: set[str]) -> Iterator[pa.Table]:
        for table in self._objects():
            inside = table["uri"].filter(pc.match_substring_regex(table["uri"], rf"(?i)\{SUFFIX}/"))
            like_tars.update(
                folder for uri in inside.to_pylist() if (folder := _folder_of(uri)).lower().endswith(SUFFIX)
            )
            yield table

    def _objects(self) -> Iterator[pa.Table]:
        """Of OBJECT."""
        for key in self.files:
            try:
                with self.destination.filesystem.open(self.destination.path(key), "rb") as file:
                    for batch in self._read(file):
                        yield self._own(batch)
            except (OSError, pa.ArrowException, EOFError, botocore.exceptions.BotoCoreError) as error:
                raise UsageError(
                    f"SOURCE {self.uri}: cannot read its list {self.destination.uri}/{key} ({describe(error)})"
                ) from error

    def _read(self, file: fsspec.spec.AbstractBufferedFile) -> Iterator[pa.RecordBatch]:
        if self.format == "Parquet":
            yield from pq.ParquetFile(file).iter_batches()
            return
        read = pyarrow.csv.ReadOptions(column_names=self.columns)
        text = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(self.columns, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        yield from pyarrow.csv.open_csv(
            pa.CompressedInputStream(pa.PythonFile(file), "gzip"), read_options=read, convert_options=text
        )

    def _own(self, batch: pa.RecordBatch) -> pa.Table:
        """Of objects that are there, not versions of before, nor marks of deletion, nor folders as consoles make them."""
        columns = {plain(name): batch[name] for name in batch.schema.names}
        if "key" not in columns:
            raise UsageError(
                f"SOURCE {self.uri}: its lists have no column Key (they have {', '.join(batch.schema.names)})"
            )
        keys = columns["key"].to_pylist()
        keys = [unquote_plus(key) for key in keys] if self.format == "CSV" else keys
        there = [not key.endswith("/") for key in keys]
        for name, wanted in (("islatest", True), ("isdeletemarker", False)):
            if name in columns:
                flags = pc.fill_null(columns[name].cast(pa.bool_()), wanted).to_pylist()
                there = [both and flag == wanted for both, flag in zip(there, flags, strict=True)]
        nothing = functools.partial(pa.nulls, batch.num_rows)
        etag, modified = columns.get("etag", nothing(pa.string())), columns.get("lastmodifieddate", nothing(pa.null()))
        values = {
            "uri": pa.array([f"s3://{self.bucket}/{key}" for key in keys], pa.large_string()),
            "size": columns.get("size", nothing(pa.int64())).cast(pa.int64()),
            "etag": pc.binary_join_element_wise('"', pc.utf8_trim(etag.cast(pa.string()), '"'), '"', ""),
            "modified": modified.cast(OBJECT.field("modified").type),
        }
        # what is in cold storage may have been restored since: that is found out when it is fetched
        return pa.table(values, OBJECT).filter(pa.array(there, pa.bool_()))


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]
