"""What a ranker is asked while it learns: photos with candidates, read in any order.

The rows lie in Parquet parts, pictures and all. A node copies them into one memory-mapped Arrow file, which the tasks that
decode pictures for its training processes share.
"""

import fcntl
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.index.rows import in_order
from geoloc.photos.decode import PhotoFile
from geoloc.photos.views import AreaView
from geoloc.ranking.options import PromptOptions
from geoloc.ranking.prompt import PromptPlace, negatives_of, reference_words
from geoloc.results.parts import Parts
from geoloc.schema import PICTURE, packed, unpacked
from geoloc.storage import cache_folder

_CHUNK_ROWS = 16
_COLUMNS = ["id", "gps", "ref_gps", "ref_texts", "ref_km", "image", "ref_images"]
QUESTION = pa.schema(
    {
        "row": pa.int64(),
        "pictures": pa.list_(PICTURE),  # of the photo, then of its candidates; null where there is none
        "lat": pa.list_(pa.float64()),  # of all references
        "lon": pa.list_(pa.float64()),
        "words": pa.list_(pa.string()),
        "km": pa.list_(pa.float64()),  # of the candidates
    }
)


@dataclass(frozen=True)
class Questions:
    table: pa.Table
    """GEORANKING's rows that are ready, in the order of their ids, memory-mapped."""

    def __len__(self) -> int:
        return self.table.num_rows

    @classmethod
    @functools.lru_cache(maxsize=2)
    def open(cls, parts: Parts) -> "Questions":
        name = hashlib.blake2b("".join([parts.folder.uri, *parts.names()]).encode(), digest_size=12).hexdigest()
        cache = cache_folder() / "georanking" / name
        cache.mkdir(parents=True, exist_ok=True)
        file = cache / "rows.arrow"
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all the processes of a node, one copies
            if not file.exists():
                draft = file.with_suffix(".tmp")
                with pa.OSFile(str(draft), "wb") as sink:
                    _copy(parts, cache, sink)
                draft.rename(file)
        return cls(pa.ipc.open_file(pa.memory_map(str(file))).read_all())

    def decoded(self, rows: list[int], view: AreaView, template: str) -> pa.Table:
        """QUESTION for each of the rows; one whose own picture cannot be read has no ``pictures``."""
        return pa.Table.from_pylist([self._decoded(row, view, template) for row in rows], QUESTION)

    def _decoded(self, row: int, view: AreaView, template: str) -> dict:
        values = self.table.slice(row, 1).to_pylist()[0]
        pictures = [_pixels(values["image"], view)]
        if pictures[0] is not None:
            pictures += [_pixels(image, view) for image in values["ref_images"]]
        return {
            "row": row,
            "pictures": pictures if pictures[0] is not None else None,
            "lat": [lat for lat, _ in values["ref_gps"]],
            "lon": [lon for _, lon in values["ref_gps"]],
            "words": [reference_words(template, texts) for texts in values["ref_texts"]],
            "km": values["ref_km"][: len(values["ref_images"])],
        }


def _copy(parts: Parts, scratch: Path, sink: pa.OSFile) -> None:
    writer = None
    for table in in_order(parts, scratch, "ready"):
        table = table.select(_COLUMNS)
        writer = writer or pa.ipc.new_file(sink, table.schema)
        writer.write_table(table, max_chunksize=_CHUNK_ROWS)
    if writer:
        writer.close()


def _pixels(data: bytes | None, view: AreaView) -> dict | None:
    if data is None:
        return None
    try:
        photo = PhotoFile(data)
        picture = view.of(photo.picture(view.scale(photo.width, photo.height)))
    except PhotoError:
        return None
    return packed(picture)


@dataclass(frozen=True)
class Question:
    picture: np.ndarray
    """(h, w, 3) uint8."""
    places: list[PromptPlace]
    """The candidates', most similar first."""
    pictures: list[np.ndarray | None]
    negatives: list[PromptPlace]
    km: np.ndarray
    """(c,) float64: how far the candidates are from where the photo was taken."""

    @classmethod
    def of(cls, row: dict, prompt: PromptOptions) -> "Question | None":
        """From a row of QUESTION; None where the photo's picture could not be read."""
        if row["pictures"] is None:
            return None
        picture, *pictures = (unpacked(one) for one in row["pictures"])
        places = [PromptPlace(*place) for place in zip(row["lat"], row["lon"], row["words"], strict=True)]
        number = len(pictures)
        negatives = negatives_of(prompt.template, places, number, prompt.negatives)
        return cls(picture, places[:number], pictures, negatives, np.array(row["km"]))
