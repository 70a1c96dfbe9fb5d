"""A folder of logs: GPX, NMEA, KML, and Google's Timeline."""

from collections.abc import Callable, Iterator

from geoloc.errors import UsageError
from geoloc.storage import Folder, S3Options, describe
from geoloc.tracks.gpx import read_gpx
from geoloc.tracks.kml import read_kml
from geoloc.tracks.nmea import read_nmea
from geoloc.tracks.timeline import read_timeline
from geoloc.tracks.track import Track

READERS: dict[str, Callable] = {
    "gpx": read_gpx,
    "nmea": read_nmea,
    "nma": read_nmea,
    "kml": read_kml,
    "json": read_timeline,
}
"""By the end of a file's name."""
LARGEST_MB = 512
UNREAD = 5
"""Files that are named: Takeout has a .json beside every photo."""


def read_tracks(path: str, s3: S3Options | None = None) -> tuple[list[Track], list[str]]:
    """The tracks of a file, or of a folder and all below it, by their names; and what was not as it should be. Raises UsageError where there
    is no point that has a time and a place."""
    tracks, notes, unread = [], [], []
    where = f"--tracks {path}"
    try:
        files = list(_files(Folder(path, s3 or S3Options())))
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {describe(error)}") from error
    if not files:
        raise UsageError(f"{where}: holds no .{', .'.join(READERS)}")
    for name, size, read in files:
        if size > LARGEST_MB << 20:
            notes.append(f"track {name}: {size >> 20:,} MB, more than the {LARGEST_MB} that are read")
            continue
        try:
            track = Track.of(name, READERS[name.rpartition(".")[2].lower()](read()))
        except (OSError, ValueError, OverflowError) as error:
            unread.append(f"track {name}: {' '.join(str(error).split())[:200]}")
            continue
        if track.left_out:
            notes.append(
                f"track {name}: {track.left_out:,} of {track.left_out + len(track):,} points are left out, which have no time, no "
                "place, or one that nobody can have been at then"
            )
        if len(track):
            tracks.append(track)
        elif not track.left_out:
            notes.append(f"track {name}: has no points")
    notes += unread[:UNREAD]
    if len(unread) > UNREAD:
        notes.append(f"{len(unread) - UNREAD:,} more files below {path} are no logs that can be read")
    if not tracks:
        raise UsageError(f"{where}: no point there has a time and a place: {'; '.join(notes)[:600]}")
    return tracks, notes


def _files(folder: Folder) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Name below the folder, size, and how to read it."""
    system, root = folder.filesystem, folder.path()
    for path, entry in sorted(system.find(root, detail=True).items()):
        if path.rpartition(".")[2].lower() in READERS:
            name = path.removeprefix(root).lstrip("/") or path.rpartition("/")[2]
            yield name, entry["size"] or 0, lambda path=path: system.cat_file(path)
