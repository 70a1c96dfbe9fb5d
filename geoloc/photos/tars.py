"""Tar files, and so WebDataset's shards, as folders of photos: where in the file each member lies, so that one range of it is
read, and nothing unpacked.

A member's uri is the tar's with the member's path behind it. Its headers are read once for each version of the file, and kept.
They are read here and not by tarfile, which hostile ones, and merely odd ones, keep busy, or make fail, without end.
"""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.storage import Folder, cache_folder, describe, uri_of

SUFFIX = ".tar"
BLOCK = 512
LONGEST_HEADER = 1 << 20
"""Of names and the like that do not fit into a block."""
MOST_ZEROS = 2_048
"""Blocks, behind which nothing more is looked for."""
_READ_AHEAD = 1 << 20
_SPARSE_KEYS = b"GNU.sparse."
_FILES, _WITHOUT_DATA, _LINKS, _SPARSE = b"0\x007", b"123456", b"12", b"S"
MEMBERS = pa.schema({"name": pa.string(), "offset": pa.int64(), "size": pa.int64()})


class _DamagedError(Exception):
    """What follows cannot be read."""


@dataclass(frozen=True)
class Members:
    rows: list[dict]
    """Of LISTING, in their order. Of two members of one name the last counts, as for tar."""
    problem: str | None
    """What is wrong with the file, if anything is: what stands before the damage is listed."""
    left_out: int
    """Links, and files that do not lie in it in one piece."""


def members_of(row: dict, filesystem: fsspec.AbstractFileSystem) -> Members:
    """The files in a tar, of which ``row`` is the row of LISTING."""
    key = hashlib.blake2b(f"{row['uri']} {row.get('etag')} {row.get('size')}".encode(), digest_size=16).hexdigest()
    kept, at, problem = Folder(str(cache_folder() / "tars")), f"{key}.parquet", None
    if row.get("etag") and kept.exists(at):
        table = pq.read_table(kept.path(at))
    else:
        folder, name = Folder(row["uri"]).parent()
        table, problem = _scan(filesystem, folder.path(name))
        if row.get("etag") and not problem:
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink, compression="zstd")
            kept.write(at, sink.getvalue().to_pybytes(), durable=False)
    common = {name: row.get(name) for name in ("etag", "modified", "archived")} | {"container": row["uri"]}
    rows = [
        common | {"uri": f"{row['uri']}/{one['name']}", "offset": one["offset"], "size": one["size"]}
        for one in table.to_pylist()
    ]
    return Members(rows, problem, int(table.schema.metadata[b"left_out"]))


def _scan(filesystem: fsspec.AbstractFileSystem, path: str) -> tuple[pa.Table, str | None]:
    """MEMBERS, with what was left out in the metadata; and what is wrong."""
    found: dict[str, dict] = {}
    left_out, problem = 0, None
    try:
        with filesystem.open(path, "rb", block_size=_READ_AHEAD, cache_type="readahead") as file:
            for header in _headers(file, filesystem.size(path)):
                if header.kind in _LINKS + _SPARSE:
                    left_out += 1
                name = posixpath.normpath("/" + header.name).lstrip("/")
                if name and header.kind in _FILES and not header.name.endswith("/"):
                    found.pop(name, None)
                    found[name] = {"name": name, "offset": header.offset, "size": header.size}
    except (_DamagedError, OSError) as error:
        problem = str(error) if isinstance(error, _DamagedError) else describe(error)
    table = pa.Table.from_pylist(list(found.values()), MEMBERS)
    return table.replace_schema_metadata({"left_out": str(left_out)}), problem


@dataclass
class _Header:
    kind: bytes
    name: str
    size: int
    offset: int = 0
    """Of the data."""


def _headers(file: BinaryIO, length: int) -> Iterator[_Header]:
    """Of the members, one behind the other; tars that were put one behind the other, too. Raises _DamagedError."""
    at, zeros, extended = 0, 0, {}
    while at < length and not (zeros and at + BLOCK > length) and zeros < MOST_ZEROS:
        block = _read(file, at, BLOCK, length)
        at += BLOCK
        if not block.strip(b"\0"):
            zeros += 1
            continue
        try:
            header = _parsed(block)
        except _DamagedError:
            if zeros >= 2:  # what stands behind the end is nobody's
                return
            raise
        zeros = 0
        if header.kind in b"xgLK":
            if header.size > LONGEST_HEADER:
                raise _DamagedError(f"a header of {header.size:,} bytes")
            data = _read(file, at, header.size, length)
            at += _whole_blocks(header.size)
            if header.kind == b"L":
                extended |= {b"path": data.rstrip(b"\0")}
            elif header.kind == b"x":
                extended |= {
                    key: value for key, value in _records(data) if key.startswith((b"path", b"size", _SPARSE_KEYS))
                }
            continue
        if header.kind == b"S":
            more = block[482]
            while more:
                more = _read(file, at, BLOCK, length)[504]
                at += BLOCK
        if b"path" in extended:
            header.name = _text(extended[b"path"])
        if extended.get(b"size"):
            header.size = _decimal(extended[b"size"])
        if any(key.startswith(_SPARSE_KEYS) for key in extended):
            header.kind = _SPARSE
        header.offset, extended = at, {}
        if header.kind not in _WITHOUT_DATA:
            if at + header.size > length:
                raise _DamagedError("it ends within a member")
            at += _whole_blocks(header.size)
        yield header
    if not zeros:
        raise _DamagedError("it has no end: it was cut, or is being written" if length else "it is empty")


def _parsed(block: bytes) -> _Header:
    """Raises _DamagedError."""
    told, counted = _octal(block[148:156]), block[:148] + b" " * 8 + block[156:]
    if told not in (sum(counted), sum(counted) - 256 * sum(byte > 127 for byte in counted)):  # some summed signed bytes
        raise _DamagedError("what follows is no header")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    size = block[124:136]
    number = int.from_bytes(bytes([size[0] & 0x7F]) + size[1:], "big") if size[0] == 0x80 else _octal(size)
    return _Header(block[156:157], _text(b"/".join(filter(None, (prefix, name)))), number)


def _octal(field: bytes) -> int:
    digits = field.lstrip(b" \0").partition(b"\0")[0].strip(b" ") or b"0"
    if digits.strip(b"01234567"):
        raise _DamagedError("what follows is no header, or of a file of less than no bytes")
    return int(digits, 8)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise _DamagedError("a header that tells no size")
    return int(value)


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Of a PAX header: ``length key=value`` and a line's end, the length being of all that. Raises _DamagedError."""
    at = 0
    while at < len(data) and data[at]:
        length, space, _ = data[at : at + 9].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data) - at:
            raise _DamagedError("a header that cannot be read")
        key, _, value = data[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        yield key, value
        at += int(length)


def _read(file: BinaryIO, at: int, size: int, length: int) -> bytes:
    """Raises _DamagedError."""
    if at + size > length:
        raise _DamagedError("it ends within a header")
    file.seek(at)
    return file.read(size)


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(name: bytes) -> str:
    return uri_of(name.decode("utf-8", "surrogateescape"))
