"""XMP sidecars of estimates: written, renewed and withdrawn; somebody else's are never touched."""

import contextlib
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from xml.sax.saxutils import quoteattr

import numpy as np

from geoloc.geo.precision import place_within, rounded
from geoloc.photos.position import estimate_text
from geoloc.results.options import Names
from geoloc.results.parts import Each
from geoloc.storage import Folder, raw_name

_LONGEST_NAME = 255
"""Bytes, on common file systems."""
_LARGEST = 8 << 10
"""Bytes; what is larger is none of ours."""
_MARK = re.compile(rb"<!-- geoloc ([0-9a-f]{16}) -->\n")
_REQUESTS = 16
_NONE = np.uint64(0)
_NEW, _THERE, _TAKEN, _NO_NAME = range(4)
"""What becomes of a row: none is there, one is, another row has it, no file can have its name."""
T = TypeVar("T")


@dataclass(frozen=True)
class SidecarTree:
    """Sidecars below a folder, as the photos lie below ``source``."""

    folder: Folder
    source: str
    names: Names = "photo.jpg.xmp"

    def update(self, read: Callable[[T], list[dict]], batches: Sequence[T], each: Each = map) -> Counter:
        """Make the tree hold a sidecar for each row of RESULT that ``read`` gives of the batches, and none of ours besides.
        Returns what was done, and what was not and why, with counts."""
        if not batches:
            return self._withdraw_others(np.zeros(0, np.uint64))
        claims = list(each(functools.partial(_claims, self, read), batches))
        there = np.sort(np.array([_hash(name) for name, _ in self._listed()], np.uint64))
        wanted, first = np.unique(np.concatenate([np.zeros(0, np.uint64), *claims]), return_index=True)
        firsts = np.split(
            np.isin(np.arange(sum(map(len, claims))), first), np.cumsum([len(one) for one in claims])[:-1]
        )
        fates = [
            np.select([one == _NONE, ~f], [_NO_NAME, _TAKEN], np.isin(one, there))
            for one, f in zip(claims, firsts, strict=True)
        ]
        done = sum(each(functools.partial(_write, self, read), zip(batches, fates, strict=True)), Counter())
        return done + self._withdraw_others(wanted)

    def take_back(self) -> int:
        """Delete all of ours; returns how many there were."""
        return self._withdraw_others(np.zeros(0, np.uint64))["withdrawn"]

    def _withdraw_others(self, wanted: np.ndarray) -> Counter:
        """Those of ours whose hashes are not among these, which ascend."""
        rest = [name for name, size in self._listed() if size <= _LARGEST and not _among(_hash(name), wanted)]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return Counter(filter(None, pool.map(self._withdraw, sorted(rest))))

    def _listed(self) -> Iterator[tuple[str, int]]:
        """Names and sizes, folder by folder. A folder that cannot be listed is not empty: what is in it may be somebody else's."""
        root = self.folder.path().rstrip("/")
        folders = [root]
        while folders:
            folder = folders.pop()
            with contextlib.suppress(FileNotFoundError):
                for entry in self.folder.filesystem.ls(folder, detail=True):
                    path = entry["name"].rstrip("/")
                    if entry["type"] == "directory":
                        folders += [path] if path != folder else []
                    elif path.lower().endswith(".xmp"):
                        yield path.removeprefix(root + "/"), entry["size"]

    def _name(self, uri: str) -> str:
        root = self.source.rstrip("/") + "/"
        relative = uri.removeprefix(root) if uri.startswith(root) else uri.split("://")[-1]
        *folders, name = [part for part in relative.split("/") if part not in ("", ".", "..")]
        stem = name if self.names == "photo.jpg.xmp" else name.rpartition(".")[0] or name
        name = "/".join([*folders, f"{stem}.xmp"])
        return raw_name(name) if self.folder.is_local else name

    def _write(self, row: dict, fate: int) -> str:
        if fate == _NO_NAME:
            return "held back, their names being too long for a file's, or none"
        if fate == _TAKEN:
            return f"held back, another photo having the same {self.names}"
        name, data = self._name(row["uri"]), sidecar(row)
        if fate == _THERE:
            before = self.folder.read(name)
            if before == data:
                return "there already"
            if not is_ours(before):
                return "held back, a sidecar of somebody else's being there"
        self.folder.write(name, data, durable=False)
        return "renewed" if fate == _THERE else "written"

    def _withdraw(self, name: str) -> str | None:
        if not is_ours(self.folder.read(name)):
            return None
        self.folder.delete(name)
        return "withdrawn"


def _claims(tree: SidecarTree, read: Callable[[T], list[dict]], batch: T) -> np.ndarray:
    """Hashes of the names that its photos' sidecars have, (n,) uint64; _NONE where no file can have that name."""
    names = (tree._name(row["uri"]) for row in read(batch))
    return np.array([_hash(name) if _can_be(name) else _NONE for name in names], np.uint64)


def _can_be(name: str) -> bool:
    parts = name.split("/")
    return "\0" not in name and all(len(part.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME for part in parts)


def _write(tree: SidecarTree, read: Callable[[T], list[dict]], one: tuple[T, np.ndarray]) -> Counter:
    """A batch, and what becomes of each of its rows."""
    batch, fates = one
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return Counter(pool.map(tree._write, read(batch), fates.tolist()))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") or 1


def _among(one: int, ascending: np.ndarray) -> bool:
    at = np.searchsorted(ascending, np.uint64(one))
    return bool(at < len(ascending) and ascending[at] == one)


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
