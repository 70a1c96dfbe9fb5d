"""The candidates that papers published, in their model's place: GeoRanker's tables (``zs_gps_lis``) and G3's (``zs_0_latitude`` …,
``5_rag_0_latitude`` …), by the photo's file name.

(0, 0), which stands for a reply that could not be read, is no candidate here (geoloc.candidates.replies).
"""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence

from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.options import read_table
from geoloc.columns import IDS, plain
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import S3Options

_LISTS = {"zs_gps_lis": "zero-shot"}
_NUMBERED = re.compile(r"(?:(zs)|(\d+)_rag)_(\d+)_latitude")
Point = tuple[float, float]


class Published:
    def __init__(self, candidates: dict[str, dict[str, list[Point]]]) -> None:
        """By file name and prompt."""
        self._candidates = candidates
        self.prompts = sorted({prompt for found in candidates.values() for prompt in found})

    @classmethod
    def read(cls, name: str, s3: S3Options) -> "Published":
        """Raises UsageError where it is no such table."""
        option = f"--generator-replies {name}"
        try:
            csv.field_size_limit(1 << 24)
            rows = csv.DictReader(io.StringIO(read_table(name, s3).decode("utf-8-sig")))
            columns = rows.fieldnames or []
            id_column = next((c for wanted in IDS for c in columns if plain(c) == wanted), None)
            numbered = [(column, found) for column in columns if (found := _NUMBERED.fullmatch(column))]
            if id_column is None or not (numbered or any(column in _LISTS for column in columns)):
                raise UsageError(
                    f"{option}: has no column of photos (such as IMG_ID), or none of zs_gps_lis, zs_0_latitude, 5_rag_0_latitude …"
                )
            found: dict[str, dict[str, list[Point]]] = {}
            for row in rows:
                of_photo = {prompt: _points(row[column]) for column, prompt in _LISTS.items() if column in columns}
                for column, match in numbered:
                    prompt = "zero-shot" if match[1] else f"references-{match[2]}"
                    point = float(row[column] or "nan"), float(row[column.replace("latitude", "longitude")] or "nan")
                    of_photo.setdefault(prompt, []).append(point)
                found[_file_name(row[id_column])] = of_photo
        except (ValueError, KeyError, SyntaxError, TypeError, csv.Error) as error:
            raise UsageError(
                f"{option}: cannot be read as a table of published candidates ({type(error).__name__}: {error})"
            ) from error
        return cls(found)

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine: a photo's first candidates of a prompt, as many as are asked for."""
        for number, request in enumerate(requests):
            of_photo = self._candidates.get(_file_name(request.photo))
            if of_photo is None:
                yield number, PhotoError("no_candidates", "the table of published candidates has no such photo")
                continue
            points = of_photo.get(request.prompt, [])[: request.samples]
            yield number, Completion(tuple(json.dumps({"latitude": lat, "longitude": lon}) for lat, lon in points))


def _points(text: str) -> list[Point]:
    """Of a Python list of pairs, as text."""
    return [(float(lat), float(lon)) for lat, lon in ast.literal_eval(text or "[]")]


def _file_name(uri: str) -> str:
    """Of a photo, without folders; YFCC's folders are part of G3's and GeoRanker's names, joined by ``_``."""
    return uri.replace("\\", "/").rsplit("/", 1)[-1]
