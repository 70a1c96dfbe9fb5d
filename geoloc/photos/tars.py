"""Tar files, and so WebDataset's shards, as folders of photos: where in the file each member lies, so that one range of it is
read, and nothing unpacked.

A member's uri is the tar's with the member's path behind it. Its headers are read once for each version of the file, and kept.
"""

import hashlib
import posixpath
import tarfile
from collections.abc import Iterator

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.storage import Folder, S3Options, cache_folder, describe

SUFFIX = ".tar"
_READ_AHEAD = 1 << 20
MEMBERS = pa.schema({"name": pa.string(), "offset": pa.int64(), "size": pa.int64()})


def members_of(row: dict, s3: S3Options) -> tuple[list[dict], str | None]:
    """Rows of LISTING for the files in a tar, of which ``row`` is the row, in their order; and what is wrong with it, if anything is:
    what stands before the damage is listed.

    Of two members of one name the last counts, as for tar.
    """
    folder, name = Folder(row["uri"], s3).parent()
    key = hashlib.blake2b(f"{row['uri']} {row.get('etag')} {row.get('size')}".encode(), digest_size=16).hexdigest()
    kept, at, problem = Folder(str(cache_folder() / "tars")), f"{key}.parquet", None
    if row.get("etag") and kept.exists(at):
        table = pq.read_table(kept.path(at))
    else:
        table, problem = _scan(folder.filesystem, folder.path(name), row.get("size"))
        if row.get("etag") and not problem:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            kept.write(at, sink.getvalue().to_pybytes(), durable=False)
    common = {name: row.get(name) for name in ("etag", "modified", "archived")} | {"container": row["uri"]}
    return [
        common | {"uri": f"{row['uri']}/{one['name']}", "offset": one["offset"], "size": one["size"]}
        for one in table.to_pylist()
    ], problem


def _scan(filesystem: fsspec.AbstractFileSystem, path: str, size: int | None) -> tuple[pa.Table, str | None]:
    found: dict[str, dict] = {}
    try:
        with (
            filesystem.open(path, "rb", block_size=_READ_AHEAD, cache_type="readahead") as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for member in _files(tar):
                name = posixpath.normpath("/" + member.name).lstrip("/")
                if name and size is not None and member.offset_data + member.size > size:
                    return _table(found), "it ends within a member"
                if name:
                    found.pop(name, None)
                    found[name] = {"name": name, "offset": member.offset_data, "size": member.size}
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # where tarfile ends, too, and says nothing
                return _table(found), "what follows is no header"
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        return _table(found), describe(error)
    return _table(found), None


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Whose bytes lie in it in one piece."""
    while member := tar.next():
        tar.members = []  # it would keep all of them
        if member.isreg() and not member.issparse():
            yield member


def _table(found: dict[str, dict]) -> pa.Table:
    return pa.Table.from_pylist(list(found.values()), MEMBERS)
