"""The results in other programs' formats, streamed from the GeoParquet parts."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from geoloc.errors import UsageError
from geoloc.schema import CONFIDENCES

FORMATS = ("geojson", "csv", "xmp")


def check_formats(names: Iterable[str]) -> None:
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"--export {name}: there is {', '.join(FORMATS)}")


def export(name: str, results: Iterable[pa.Table], folder: Path, source: str) -> None:
    """Write ``geotags.geojson``, ``geotags.csv`` or the tree ``xmp/`` into ``folder``, from batches of RESULT.

    ``source`` is the archive's root; sidecars lie in ``xmp/`` as the photos lie under it.
    """
    rows = (row for table in results for row in table.to_pylist())
    {"geojson": _geojson, "csv": _csv, "xmp": _xmp}[name](rows, folder, source)


def _geojson(rows: Iterator[dict], folder: Path, source: str) -> None:
    """RFC 7946; a photo without a place has a null geometry."""
    with (folder / "geotags.geojson").open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, row in enumerate(rows):
            point = {"type": "Point", "coordinates": [row["lon"], row["lat"]]} if row["lat"] is not None else None
            names = [
                "uri",
                "status",
                "radius_km",
                "confidence",
                *CONFIDENCES.values(),
                "method",
                "place",
                "error_kind",
                "error",
            ]
            properties = {name: row[name] for name in names}
            feature = {"type": "Feature", "id": row["id"], "geometry": point, "properties": properties}
            file.write(",\n" if number else "\n")
            json.dump(feature, file, ensure_ascii=False)
        file.write("\n]}\n")


def _csv(rows: Iterator[dict], folder: Path, source: str) -> None:
    """What ``exiftool -csv=geotags.csv`` reads: tag names as headings, one line a located photo."""
    with (folder / "geotags.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        tags = ["GPSLatitude", "GPSLatitudeRef", "GPSLongitude", "GPSLongitudeRef"]
        writer.writerow(
            ["SourceFile", *tags, "GPSHPositioningError", "GPSProcessingMethod", "City", "State", "Country"]
        )
        for row in rows:
            if row["status"] == "located":
                place = row["place"] or {}
                writer.writerow(
                    [
                        row["uri"],
                        f"{abs(row['lat']):.7f}",
                        "N" if row["lat"] >= 0 else "S",
                        f"{abs(row['lon']):.7f}",
                        "E" if row["lon"] >= 0 else "W",
                        round(row["radius_km"] * 1000),
                        f"geoloc estimate ({row['method']})",
                        *(place.get(name) or "" for name in ("city", "region", "country")),
                    ]
                )


def _xmp(rows: Iterator[dict], folder: Path, source: str) -> None:
    """``xmp/photo.jpg.xmp`` for every located photo; one that is there already is left alone."""
    root = source.rstrip("/") + "/"
    for row in rows:
        if row["status"] != "located":
            continue
        relative = row["uri"].removeprefix(root) if row["uri"].startswith(root) else row["uri"].split("://")[-1]
        parts = [part for part in relative.split("/") if part not in ("", ".", "..")]
        target = folder.joinpath("xmp", *parts[:-1], f"{parts[-1]}.xmp")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(sidecar(row), encoding="utf-8")


def sidecar(row: dict) -> str:
    """An XMP packet with position, error radius and place, marked as an estimate."""
    place = row["place"] or {}
    properties = {
        "exif:GPSLatitude": _degrees_minutes(row["lat"], "NS"),
        "exif:GPSLongitude": _degrees_minutes(row["lon"], "EW"),
        "exif:GPSMapDatum": "WGS-84",
        "exif:GPSHPositioningError": f"{round(row['radius_km'] * 1000)}/1",
        "exif:GPSProcessingMethod": f"geoloc estimate ({row['method']}), not a measurement",
        "photoshop:City": place.get("city"),
        "photoshop:State": place.get("region"),
        "photoshop:Country": place.get("country"),
        "Iptc4xmpCore:CountryCode": place.get("country_code"),
    }
    attributes = "\n   ".join(f"{name}={quoteattr(value)}" for name, value in properties.items() if value)
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:exif="http://ns.adobe.com/exif/1.0/"
   xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
   xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
   {attributes}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def _degrees_minutes(value: float, signs: str) -> str:
    """XMP's GPSCoordinate: ``48,51.5029000N``."""
    degrees, minutes = divmod(round(abs(value) * 60, 7), 60)
    return f"{int(degrees)},{minutes:.7f}{signs[0] if value >= 0 else signs[1]}"
