"""The results in other programs' formats, streamed from the GeoParquet parts, and never more precise than they are."""

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from geoloc.geo.precision import place_within, rounded
from geoloc.photos.position import estimate_text
from geoloc.results.options import ExportOptions
from geoloc.results.sidecars import SidecarTree
from geoloc.schema import CONFIDENCES
from geoloc.storage import Folder, raw_name


@dataclass(frozen=True)
class Export:
    options: ExportOptions
    folder: Folder
    """Where ``geotags.geojson``, ``geotags.csv`` and the tree ``xmp/`` go."""
    source: str
    """What the photos' uris begin with."""
    calibrated: bool

    def write(self, name: str, results: Iterable[pa.Table]) -> Counter:
        """One of FORMATS, from batches of RESULT. Returns what was written, and what was held back and why, with counts."""
        return {"geojson": self._geojson, "csv": self._csv, "xmp": self._xmp}[name](results)

    def is_there(self, name: str) -> bool:
        """Whether one of FORMATS was written before."""
        return self.folder.exists("xmp" if name == "xmp" else f"geotags.{name}")

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

    def _exported(self, results: Iterable[pa.Table], done: Counter) -> Iterator[list[dict]]:
        """Located rows that may be written beside or into photos, table by table; the others are counted."""
        for table in results:
            rows = []
            for row in table.to_pylist():
                if row["status"] == "located":
                    reason = self._untouchable(row) or self._held_back(row)
                    rows += [] if reason else [row]
                    done.update([reason] if reason else [])
            yield rows

    def _xmp(self, results: Iterable[pa.Table]) -> Counter:
        done = Counter()
        return self.sidecars.update(self._exported(results, done)) + done

    def _csv(self, results: Iterable[pa.Table]) -> Counter:
        """What ``exiftool -csv=geotags.csv`` reads: tag names as headings, one line a photo. Names of places go to XMP, which
        is UTF-8; IPTC's need not be."""
        done = Counter()

        def write(file: IO[str]) -> None:
            writer = csv.writer(file)
            names = ["GPSLatitude", "GPSLatitudeRef", "GPSLongitude", "GPSLongitudeRef", "GPSHPositioningError"]
            names += ["GPSProcessingMethod", *(f"XMP-photoshop:{name}" for name in ("City", "State", "Country"))]
            writer.writerow(["SourceFile", *names])
            for row in (row for rows in self._exported(results, done) for row in rows):
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

        self._write_file("geotags.csv", write)
        return done

    def _source_file(self, uri: str) -> str:
        root = self.source.rstrip("/") + "/"
        is_local = "://" not in uri
        if not uri.startswith(root) or (is_local and self.options.csv_root is None):
            return raw_name(uri) if is_local else uri
        below = uri.removeprefix(root)
        below = raw_name(below) if is_local else below
        return f"{self.options.csv_root.rstrip('/')}/{below}" if self.options.csv_root is not None else below

    def _geojson(self, results: Iterable[pa.Table]) -> Counter:
        """RFC 7946; a photo without a place, or whose place is held back, has a null geometry."""
        done = Counter()
        names = ["uri", "status", "radius_km", "confidence", *CONFIDENCES.values(), "method", "error_kind", "error"]

        def write(file: IO[str]) -> None:
            file.write('{"type": "FeatureCollection", "features": [')
            for number, row in enumerate(row for table in results for row in table.to_pylist()):
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

        self._write_file("geotags.geojson", write)
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
