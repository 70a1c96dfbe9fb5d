"""Where photos come from: an S3 prefix, a local folder, or a table of uris. Lists, never looks at a photo."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import botocore.exceptions
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from geoloc.errors import UsageError
from geoloc.schema import MANIFEST
from geoloc.storage import Folder, S3Options, describe, is_s3, split_s3

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif")
LISTING = pa.schema([field for field in MANIFEST if field.name not in ("id", "replaces")])
BATCH_ROWS = 8_192


@dataclass
class Source:
    """A listing under way. ``left_out`` and ``duplicates`` are complete once ``list`` is exhausted."""

    uri: str
    s3: S3Options
    left_out: int = 0
    """Files passed over because their suffix is none of SUFFIXES."""
    duplicates: int = 0
    """Rows of a table passed over because an earlier row names the same photo."""

    def list(self) -> Iterator[pa.RecordBatch]:
        """Batches of LISTING. Raises UsageError where the source cannot be listed or its table cannot be read."""
        if Path(self.uri).suffix.lower() in (".parquet", ".csv"):
            return self._table()
        found = self._bucket() if is_s3(self.uri) else self._folder()
        return (pa.RecordBatch.from_pylist(batch, LISTING) for batch in _batches(found))

    def _wanted(self, name: str) -> bool:
        wanted = name.lower().endswith(SUFFIXES)
        self.left_out += not wanted
        return wanted

    def _folder(self) -> Iterator[dict]:
        root = os.path.abspath(self.uri)  # must not resolve links
        if not Path(root).is_dir():
            raise UsageError(f"SOURCE {self.uri}: no such folder")
        seen = set()  # a folder is visited once, so a loop of links ends
        for folder, subfolders, files in os.walk(root, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders.sort()
            for name in sorted(files):
                if self._wanted(name):
                    yield self._file(os.path.join(folder, name))

    def _file(self, path: str) -> dict:
        row = {"uri": path.encode("utf-8", "backslashreplace").decode()}
        try:
            status = os.stat(path)
        except OSError:  # a dangling link: it will fail when it is fetched, with its reason
            return row
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return row | {"size": status.st_size, "etag": local_etag(status), "modified": modified}

    def _bucket(self) -> Iterator[dict]:
        bucket, prefix = split_s3(self.uri)
        prefix = prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
        try:
            for page in self.s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    if self._wanted(entry["Key"]):
                        yield {
                            "uri": f"s3://{bucket}/{entry['Key']}",
                            "size": entry["Size"],
                            "etag": entry["ETag"],
                            "modified": entry["LastModified"],
                        }
        except botocore.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            hint = {
                "NoSuchBucket": "there is no such bucket",
                "AccessDenied": "these credentials may not list it",
                "InvalidAccessKeyId": "the access key is not known there",
                "SignatureDoesNotMatch": "the secret key is wrong",
            }.get(code, str(error))
            raise UsageError(f"SOURCE {self.uri}: {hint} ({code})") from error
        except botocore.exceptions.BotoCoreError as error:
            raise UsageError(
                f"SOURCE {self.uri}: {describe(error)} (set credentials, --s3.endpoint or --s3.anonymous)"
            ) from error

    def _table(self) -> Iterator[pa.RecordBatch]:
        """Rows of a CSV or Parquet file with a ``uri`` column; relative uris start from the file's folder."""
        parent, _, name = self.uri.rpartition("/")
        folder = Folder(parent or ("/" if self.uri.startswith("/") else "."), self.s3)
        try:
            with folder.filesystem.open(folder.path(name), "rb") as file:
                table = pq.read_table(file) if name.lower().endswith(".parquet") else pyarrow.csv.read_csv(file)
        except (OSError, pa.ArrowException, botocore.exceptions.BotoCoreError) as error:
            raise UsageError(f"SOURCE {self.uri}: cannot read it ({describe(error)})") from error
        if "uri" not in table.column_names:
            raise UsageError(f"SOURCE {self.uri}: has no column `uri` (it has {', '.join(table.column_names)})")
        columns = {}
        for field in LISTING:
            column = table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
            try:
                columns[field.name] = column.cast(field.type)
            except pa.ArrowInvalid as error:
                raise UsageError(f"SOURCE {self.uri}: column `{field.name}`: {describe(error)}") from error
        if columns["uri"].null_count:
            raise UsageError(f"SOURCE {self.uri}: {columns['uri'].null_count} rows have no uri")
        columns["uri"] = pa.array(
            [uri if "://" in uri else _join(folder.uri, uri) for uri in columns["uri"].to_pylist()]
        )
        table = pa.table(columns, schema=LISTING)
        first = pc.index_in(table["uri"], table["uri"].combine_chunks())
        fresh = table.filter(pc.equal(first, pa.array(range(table.num_rows), pa.int32())))
        self.duplicates += table.num_rows - fresh.num_rows
        yield from fresh.to_batches(max_chunksize=BATCH_ROWS)


def _join(folder: str, name: str) -> str:
    return name if name.startswith("/") else f"{folder}/{name}"


def local_etag(status: os.stat_result) -> str:
    """What an S3 etag is to an object: another content, another tag."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def _batches(rows: Iterator[dict]) -> Iterator[list[dict]]:
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch
