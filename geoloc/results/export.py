"""The results in other programs' formats, streamed from the GeoParquet parts, and never more precise than they are."""

import csv
import functools
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from geoloc.geo.precision import place_within, rounded
from geoloc.photos.position import estimate_text
from geoloc.results.options import ExportOptions
from geoloc.results.parts import Each, Parts
from geoloc.results.sidecars import SidecarTree
from geoloc.schema import CONFIDENCES
from geoloc.storage import Folder, raw_name

FILE_ROWS = 1_000_000
"""Photos of more than one such file are in several, which are made side by side."""
COLUMNS = ["uri", "status", "lat", "lon", "radius_km", "place", "method", "gps", "because"]


@dataclass(frozen=True)
class Export:
    options: ExportOptions
    folder: Folder
    """Where ``geotags.geojson``, ``geotags.csv`` (of a large run ``geotags-00000.csv`` …) and the tree ``xmp/`` go."""
    source: str
    """What the photos' uris begin with."""
    calibrated: bool

    def write(self, name: str, parts: Parts, each: Each = map) -> Counter:
        """One of FORMATS, from files of RESULT. Returns what was written, and what was held back and why, with counts."""
        if name == "xmp":
            return self._xmp(parts, each)
        write, files = {"geojson": self._geojson, "csv": self._csv}[name], self._files(name, parts)
        done = sum(each(functools.partial(write, parts), files.items()), Counter())
        for before in set(self._made(name)) - files.keys():
            self.folder.delete(before)
        return done

    def is_there(self, name: str) -> bool:
        """Whether one of FORMATS was written before."""
        return self.folder.exists("xmp") if name == "xmp" else bool(self._made(name))

    def _made(self, name: str) -> list[str]:
        """Files of a format."""
        return [file for file in self.folder.names() if re.fullmatch(rf"geotags(-\d{{5}})?\.{name}", file)]

    @staticmethod
    def _files(name: str, parts: Parts) -> dict[str, list[str]]:
        """By their names, the results that go into each: one file, or one for about every FILE_ROWS photos."""
        groups, rows = [[]], 0
        for part, count in zip(parts.names(), parts.each(parts.rows), strict=True):
            if rows + count > FILE_ROWS and groups[-1]:
                groups, rows = [*groups, []], 0
            groups[-1].append(part)
            rows += count
        if len(groups) == 1:
            return {f"geotags.{name}": groups[0]}
        return {f"geotags-{number:05d}.{name}": group for number, group in enumerate(groups)}

    @property
    def sidecars(self) -> SidecarTree:
        return SidecarTree(self.folder / "xmp", self.source, self.options.xmp_names)

    def _held_back(self, row: dict) -> str | None:
        """Why an estimate is not exported."""
        limit = self.options.max_radius_km(self.calibrated)
        if row["radius_km"] > limit:
            return f"held back, their radius being over {limit:g} km (--export-max-radius-km)"
        return None

    def _untouchable(self, row: dict) -> str | None:
        """Why nothing is to be written over what a photo carries."""
        if row["gps"] == "read":
            return "held back, having a position of their own"
        if row["gps"] in ("unreadable", "implausible") and not self.options.overwrite_unreadable_gps:
            return f"held back, their own position being {row['gps']} (--overwrite-unreadable-gps)"
        return None

    def _reason(self, row: dict) -> str | None:
        """Why nothing is written beside or into a located photo."""
        return self._untouchable(row) or self._held_back(row)

    def _exported(self, parts: Parts, name: str) -> list[dict]:
        """Located rows of a file that may be written beside or into photos."""
        rows = parts.read(name, COLUMNS).to_pylist()
        return [row for row in rows if row["status"] == "located" and not self._reason(row)]

    def _reasons(self, parts: Parts, name: str) -> Counter:
        """Of the others of a file."""
        rows = parts.read(name, ["status", "gps", "radius_km"]).to_pylist()
        return Counter(filter(None, (self._reason(row) for row in rows if row["status"] == "located")))

    def _xmp(self, parts: Parts, each: Each) -> Counter:
        names = parts.names()
        done = self.sidecars.update(functools.partial(self._exported, parts), names, each)
        return done + sum(each(functools.partial(self._reasons, parts), names), Counter())

    def _csv(self, parts: Parts, file_of: tuple[str, list[str]]) -> Counter:
        """What ``exiftool -csv=geotags.csv`` reads: tag names as headings, one line a photo. Names of places go to XMP, which
        is UTF-8; IPTC's need not be."""
        name, group = file_of
        done = sum((self._reasons(parts, part) for part in group), Counter())

        def write(file: IO[str]) -> None:
            writer = csv.writer(file)
            names = ["GPSLatitude", "GPSLatitudeRef", "GPSLongitude", "GPSLongitudeRef", "GPSHPositioningError"]
            names += ["GPSProcessingMethod", *(f"XMP-photoshop:{name}" for name in ("City", "State", "Country"))]
            writer.writerow(["SourceFile", *names])
            for row in (row for part in group for row in self._exported(parts, part)):
                lat, lon = rounded(row["lat"], row["lon"], row["radius_km"])
                place = place_within(row["place"], row["radius_km"])
                writer.writerow(
                    [
                        self._source_file(row["uri"]),
                        f"{abs(lat):.7f}",
                        "N" if lat >= 0 else "S",
                        f"{abs(lon):.7f}",
                        "E" if lon >= 0 else "W",
                        round(row["radius_km"] * 1000),
                        estimate_text(lat, lon, row["method"]),
                        *(place.get(name, "") for name in ("city", "region", "country")),
                    ]
                )
                done["written"] += 1

        self._write_file(name, write)
        return done

    def _source_file(self, uri: str) -> str:
        root = self.source.rstrip("/") + "/"
        is_local = "://" not in uri
        if not uri.startswith(root) or (is_local and self.options.csv_root is None):
            return raw_name(uri) if is_local else uri
        below = uri.removeprefix(root)
        below = raw_name(below) if is_local else below
        return f"{self.options.csv_root.rstrip('/')}/{below}" if self.options.csv_root is not None else below

    def _geojson(self, parts: Parts, file_of: tuple[str, list[str]]) -> Counter:
        """RFC 7946; a photo without a place, or whose place is held back, has a null geometry."""
        name, group = file_of
        done = Counter()
        names = ["uri", "status", "radius_km", "confidence", *CONFIDENCES.values(), "method", "error_kind", "error"]
        columns = ["id", *names, "lat", "lon", "place"]

        def write(file: IO[str]) -> None:
            file.write('{"type": "FeatureCollection", "features": [')
            for number, row in enumerate(row for part in group for row in parts.read(part, columns).to_pylist()):
                reason = self._held_back(row) if row["status"] == "located" else None
                lat, lon, place = row["lat"], row["lon"], row["place"]
                if row["status"] == "located":
                    lat, lon = rounded(lat, lon, row["radius_km"])
                    place = place_within(place, row["radius_km"])
                    done[reason or "written"] += 1
                point = None if reason or lat is None else {"type": "Point", "coordinates": [lon, lat]}
                properties = {name: row[name] for name in names} | {"place": place, "held_back": reason}
                file.write(",\n" if number else "\n")
                feature = {"type": "Feature", "id": row["id"], "geometry": point, "properties": properties}
                json.dump(feature, file, ensure_ascii=False)
            file.write("\n]}\n")

        self._write_file(name, write)
        return done

    def _write_file(self, name: str, write: Callable[[IO[str]], None]) -> None:
        """By way of a draft, of which a reader sees all or nothing."""
        beside = self.folder.path() if self.folder.is_local else None
        with tempfile.TemporaryDirectory(dir=beside, prefix=".export-") as drafts:
            draft = Path(drafts) / name
            with draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                write(file)
            self.folder.upload(draft, name)


def describe_export(name: str, done: Counter) -> str:
    """What an export came to, in a line."""
    return f"Export {name}: " + (", ".join(f"{count:,} {what}" for what, count in done.most_common()) or "nothing")
