"""Tables as people have them, in files: CSV of any delimiter, Parquet."""

import csv
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from geoloc.columns import csv_delimiter
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

MOST_SUMMARY_LINES = 10
"""At the end of a table of predictions."""
CANDIDATE_PARTS = ["lat", "lon", "score", "similarity"]
_NO_VALUE = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "NA", "N/A"]


@dataclass(frozen=True)
class TableFile:
    """A CSV or Parquet file, looked at but not read: its columns, and how they are separated."""

    folder: Folder
    path: str
    names: list[str]
    delimiter: str | None
    """None for Parquet."""

    @classmethod
    def open(cls, folder: Folder, path: str) -> "TableFile":
        """Raises OSError, and ArrowException for a file that is not Parquet though it is called so."""
        with folder.filesystem.open(path, "rb") as file:
            if path.lower().endswith((".parquet", ".pq")):
                return cls(folder, path, pq.ParquetFile(file).schema_arrow.names, None)
            line = file.readline()
        delimiter = csv_delimiter(line)
        names = next(csv.reader([line.decode("utf-8-sig", "replace")], delimiter=delimiter), [])
        return cls(folder, path, names, delimiter)

    def read(self, names: list[str], text: set[str]) -> pa.Table:
        """These columns: those of ``text`` as strings where it is CSV, the others as numbers. Raises ArrowException, and ValueError
        for lines that are no rows."""
        with self.folder.filesystem.open(self.path, "rb") as file:
            if self.delimiter is None:
                return pq.read_table(file, columns=names)
            kinds = {name: pa.string() if name in text else pa.float64() for name in names}
            convert = pyarrow.csv.ConvertOptions(
                column_types=kinds, include_columns=names, null_values=_NO_VALUE, strings_can_be_null=True
            )
            layout = pyarrow.csv.ParseOptions(delimiter=self.delimiter)
            try:
                return pyarrow.csv.read_csv(file, parse_options=layout, convert_options=convert)
            except pa.ArrowInvalid:
                numbers = [name for name in names if name not in text]
                file.seek(0)
                data = self._without_summary(file.read(), numbers)
                if data is None:
                    raise
            return pyarrow.csv.read_csv(pa.BufferReader(data), parse_options=layout, convert_options=convert)

    def _without_summary(self, data: bytes, numbers: list[str]) -> bytes | None:
        """Without the last lines, where they are no rows of the table: TIBHannover's predictions end in their accuracies.

        Such lines come after an empty one, or begin with one that has no number at all, and are few. None where all lines
        are rows; raises ValueError, naming the line, for one that is neither.
        """
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=self.delimiter)
        header = next(reader)
        at = [header.index(name) for name in numbers]
        line, apart = reader.line_num + 1, False
        for row in reader:
            if row and (len(row) != len(header) or not all(_is_number(row[column]) for column in at)):
                apart = apart or not any(cell and _is_number(cell) for cell in row)
                break
            line, apart = reader.line_num + 1, not row
        lines = data.splitlines(keepends=True)
        rest = [text for text in lines[line - 1 :] if text.strip()]
        if not rest:
            return None
        what = rest[0].decode("utf-8", "replace").strip()[:80]
        if not apart or len(rest) > MOST_SUMMARY_LINES:
            raise ValueError(f"line {line} has no {' and '.join(numbers)}: {what!r}")
        log.warning("%s: its last lines, from line %s on, are no photos and are left out (%s …)", self.path, line, what)
        return b"".join(lines[: line - 1])

    def candidates(self) -> Iterator[pa.ListArray]:
        """Of a run's Parquet, a piece at a time."""
        with self.folder.filesystem.open(self.path, "rb") as file:
            parts = [f"candidates.list.element.{name}" for name in CANDIDATE_PARTS]
            for batch in pq.ParquetFile(file).iter_batches(batch_size=16_384, columns=parts):
                yield batch["candidates"]


def _is_number(text: str) -> bool:
    if text in _NO_VALUE:
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
