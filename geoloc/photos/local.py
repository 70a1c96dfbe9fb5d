"""Files of this machine as rows of LISTING."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from geoloc.photos import sidecars
from geoloc.photos.formats import is_photo, suffix_of
from geoloc.storage import local_etag, uri_of


def walk(root: str, unread: Callable[[OSError], None]) -> Iterator[list[dict]]:
    """The files of a folder and of those in it, each visited once, so that a loop of links ends."""
    seen = set()
    for folder, subfolders, names in os.walk(root, onerror=unread, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        files = [file_row(os.path.join(folder, name)) for name in sorted(names)]
        for file in files:
            if "size" not in file and not is_photo(file["uri"]):  # a link to a folder that is not there now
                unread(OSError(file["uri"]))
        yield files


def file_row(path: str) -> dict:
    """Of LISTING."""
    row = {"uri": uri_of(path)}
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: it will fail when it is fetched, with its reason
        return row
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return row | {"size": status.st_size, "etag": local_etag(status), "modified": modified}


def sidecars_in(folder: str) -> dict[str, dict]:
    """Of a folder, by their names in lower case."""
    try:
        names = sorted(name for name in os.listdir(folder) if suffix_of(name) in sidecars.SUFFIXES)
    except OSError:
        return {}
    return {name.lower(): file_row(os.path.join(folder, name)) for name in names}


def files_beside(path: str) -> list[dict]:
    """A file's, and those in its folder."""
    folder = os.path.dirname(path)
    return [file_row(os.path.join(folder, name)) for name in sorted(os.listdir(folder))]
