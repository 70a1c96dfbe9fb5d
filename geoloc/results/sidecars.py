"""XMP sidecars of estimates: written, renewed and withdrawn; somebody else's are never touched."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from geoloc.geo.precision import place_within, rounded
from geoloc.photos.position import estimate_text
from geoloc.results.options import Names
from geoloc.storage import Folder, raw_name

_LONGEST_NAME = 255
"""Bytes, on common file systems."""
_LARGEST = 8 << 10
"""Bytes; what is larger is none of ours."""
_MARK = re.compile(rb"<!-- geoloc ([0-9a-f]{16}) -->\n")
_REQUESTS = 16


@dataclass(frozen=True)
class SidecarTree:
    """Sidecars below a folder, as the photos lie below ``source``."""

    folder: Folder
    source: str
    names: Names = "photo.jpg.xmp"

    def update(self, tables: Iterable[list[dict]]) -> Counter:
        """Make the tree hold a sidecar for each of these rows of RESULT, and none of ours besides. Returns what was done,
        and what was not and why, with counts."""
        there = self._there()
        done, wanted = Counter(), set()
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for rows in tables:
                files = []
                for row in rows:
                    name = self._name(row["uri"])
                    if len(name.rsplit("/", 1)[-1].encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
                        done["held back, their names being too long for a sidecar's"] += 1
                    elif name in wanted:
                        done[f"held back, another photo having the same {self.names}"] += 1
                    else:
                        wanted.add(name)
                        files.append((name, sidecar(row)))
                done.update(pool.map(lambda file: self._write(*file, file[0] in there), files))
            rest = sorted(name for name, size in there.items() if name not in wanted and size <= _LARGEST)
            done.update(filter(None, pool.map(self._withdraw, rest)))
        return done

    def take_back(self) -> int:
        """Delete all of ours; returns how many there were."""
        return self.update([])["withdrawn"]

    def _there(self) -> dict[str, int]:
        """Sizes of the sidecars that are there, by name."""
        root = self.folder.path().rstrip("/") + "/"
        try:
            found = self.folder.filesystem.find(self.folder.path(), detail=True)
        except FileNotFoundError:
            return {}
        return {
            path.removeprefix(root): entry["size"] for path, entry in found.items() if path.lower().endswith(".xmp")
        }

    def _name(self, uri: str) -> str:
        root = self.source.rstrip("/") + "/"
        relative = uri.removeprefix(root) if uri.startswith(root) else uri.split("://")[-1]
        *folders, name = [part for part in relative.split("/") if part not in ("", ".", "..")]
        stem = name if self.names == "photo.jpg.xmp" else name.rpartition(".")[0] or name
        name = "/".join([*folders, f"{stem}.xmp"])
        return raw_name(name) if self.folder.is_local else name

    def _write(self, name: str, data: bytes, there: bool) -> str:
        if there:
            before = self.folder.read(name)
            if before == data:
                return "there already"
            if not is_ours(before):
                return "held back, a sidecar of somebody else's being there"
        self.folder.write(name, data, durable=False)
        return "renewed" if there else "written"

    def _withdraw(self, name: str) -> str | None:
        if not is_ours(self.folder.read(name)):
            return None
        self.folder.delete(name)
        return "withdrawn"


def is_ours(data: bytes) -> bool:
    """Whether a sidecar is as we wrote it: one that was changed since is its editor's."""
    found = _MARK.search(data)
    return bool(found) and found[1] == _digest(_MARK.sub(b"", data))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).hexdigest().encode()


def sidecar(row: dict) -> bytes:
    """An XMP packet with position, error radius and place, no more precise than the radius, and marked as an estimate."""
    lat, lon = rounded(row["lat"], row["lon"], row["radius_km"])
    place, estimate = place_within(row["place"], row["radius_km"]), estimate_text(lat, lon, row["method"])
    properties = {
        "exif:GPSLatitude": _degrees_minutes(lat, "NS"),
        "exif:GPSLongitude": _degrees_minutes(lon, "EW"),
        "exif:GPSMapDatum": "WGS-84",
        "exif:GPSHPositioningError": f"{round(row['radius_km'] * 1000)}/1",
        "exif:GPSProcessingMethod": ", ".join(filter(None, (estimate, "not a measurement", row["because"]))),
        "photoshop:City": place.get("city"),
        "photoshop:State": place.get("region"),
        "photoshop:Country": place.get("country"),
        "Iptc4xmpCore:CountryCode": place.get("country_code"),
    }
    attributes = "\n   ".join(f"{name}={quoteattr(value)}" for name, value in properties.items() if value)
    packet = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="geoloc">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
   xmlns:exif="http://ns.adobe.com/exif/1.0/"
   xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
   xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
   {attributes}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()
    head, tail = packet.split(b"<x:xmpmeta", 1)
    return head + b"<!-- geoloc " + _digest(packet) + b" -->\n<x:xmpmeta" + tail


def _degrees_minutes(value: float, signs: str) -> str:
    """XMP's GPSCoordinate: ``48,51.5029000N``."""
    degrees, minutes = divmod(round(abs(value) * 60, 7), 60)
    return f"{int(degrees)},{minutes:.7f}{signs[0] if value >= 0 else signs[1]}"
