"""What was learned, as a JSON file with a format."""

import json
from collections.abc import Callable
from typing import TypeVar

from geoloc.errors import UsageError
from geoloc.storage import Folder, S3Options, describe

T = TypeVar("T")


def read_record(
    kind: Callable[..., T], path: str, name: str, known: int, made_by: str, option: str, s3: S3Options
) -> T:
    """A ``kind`` of the file's entries: the file, or ``name`` in the folder, of the format that is ``known``. Raises UsageError."""
    path = path if path.endswith(".json") else f"{path.rstrip('/')}/{name}"
    folder, _, file = path.rpartition("/")
    try:
        content = json.loads(Folder(folder or ".", s3).read(file))
        if content.get("format") != known:
            raise UsageError(f"{option} {path}: format {content.get('format')}, this version reads {known}")
        return kind(**content)
    except FileNotFoundError as error:
        raise UsageError(f"{option} {path}: no such file; make it with jobs/{made_by}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{option} {path}: is no {name.removesuffix('.json')} ({describe(error)})") from error
