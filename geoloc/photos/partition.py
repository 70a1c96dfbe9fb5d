"""More rows than fit into memory, put into files of which each does, by a hash of a text."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 250_000
"""That are held at once, about."""
MOST_FILES = 512
"""That are open at once."""
BUFFER_ROWS = 131_072


def files_for(rows: int, least: int = 1) -> int:
    return max(least, min(MOST_FILES, rows // ROWS + 1))


class Partition:
    def __init__(self, folder: Path, name: str, count: int) -> None:
        """Into so many files of that name in the folder."""
        self._paths = [folder / f"{name}-{number}.arrow" for number in range(count)]

    def fill(self, tables: Iterable[pa.Table], schema: pa.Schema, key: Callable[[str], str] = str) -> None:
        """By the ``key`` of each row's ``uri``."""
        with ExitStack() as stack:
            files = [stack.enter_context(pa.ipc.new_file(str(path), schema)) for path in self._paths]
            for table in in_stretches(tables, BUFFER_ROWS):
                number = np.array([zlib.crc32(key(uri).encode()) for uri in table["uri"].to_pylist()]) % len(files)
                order = np.argsort(number, kind="stable")
                table, bounds = table.take(order), np.searchsorted(number[order], np.arange(len(files) + 1))
                for one in np.flatnonzero(np.diff(bounds)):
                    files[one].write_table(table.slice(bounds[one], bounds[one + 1] - bounds[one]))

    def tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """A file each, gone from the disk when the next is asked for."""
        for path in self._paths:
            with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
                yield reader.read_all().cast(schema).combine_chunks()
            path.unlink()


def in_stretches(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, so many at a time, but for the last."""
    waiting, count = [], 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            table = pa.concat_tables(waiting)
            yield table.slice(0, rows).combine_chunks()
            waiting, count = [table.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting).combine_chunks()
