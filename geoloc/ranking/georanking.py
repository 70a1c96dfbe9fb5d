"""What a ranker learns from: photos of known place, each with the references that retrieval finds for it (GeoRanker §4.1)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.encoders.config import PARTS
from geoloc.errors import PhotoError
from geoloc.estimate.retriever import Retriever
from geoloc.geo.distance import geodesic_km, haversine_km, valid_coordinates
from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.photos.views import View
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.options import TWIN_KM, GeoRankingOptions
from geoloc.schema import GEORANKING
from geoloc.storage import Folder

SPARE = 30
"""Retrieved beyond the references that are wanted, for the photo itself and its twins that are left out."""


@dataclass(frozen=True)
class Reference:
    name: str
    lat: float
    lon: float
    texts: list[str]
    """What its place is called: city, region and country where they are known, or a published table's fields."""
    image: bytes | None = None


class Retrieved:
    """References by searching an index."""

    def __init__(self, retriever: Retriever, options: GeoRankingOptions, parts: tuple[str, ...] = PARTS) -> None:
        """``parts`` of an aligned vector are what is searched by."""
        self._retriever, self._index, self._options, self._parts = retriever, retriever.index, options, parts

    def rows(self, batch: pa.Table, lat: np.ndarray, lon: np.ndarray) -> Iterator[tuple[int, list[Reference]]]:
        """Row numbers of a batch of LOADED's photos, and what was found for each, most similar first."""
        vectors, rows = self._retriever.encode(batch)
        if not len(rows):
            return
        wanted = min(self._options.references + SPARE, self._index.info.rows)
        found = self._retriever.search(vectors, wanted, self._parts)
        left_out = self._same(batch["uri"].take(pa.array(rows)), found)
        if self._options.twin_cosine is not None:
            cosine = found.similarity / np.einsum("nd,nd->n", vectors, vectors)[:, None]
            near = haversine_km(lat[rows, None], lon[rows, None], found.lat, found.lon) <= TWIN_KM
            left_out |= near & (cosine >= self._options.twin_cosine)
        for number, row in enumerate(rows.tolist()):
            good = found.row[number][~left_out[number] & (found.row[number] >= 0)]
            yield row, self._references(good[: self._options.references])

    def _same(self, uris: pa.ChunkedArray, found: Candidates) -> np.ndarray:
        """(n, k) bool: where a reference is the photo itself."""
        theirs = np.array(self._index.uri.take(pa.array(found.row.ravel())).to_pylist(), object)
        return theirs.reshape(found.row.shape) == np.array(uris.to_pylist(), object)[:, None]

    def _references(self, rows: np.ndarray) -> list[Reference]:
        uris = self._index.uri.take(pa.array(rows)).to_pylist()
        places = self._index.place.take(pa.array(rows)).to_pylist()
        lat, lon = self._index.lat[rows].tolist(), self._index.lon[rows].tolist()
        return [
            Reference(
                _base_name(uris[n]) if uris[n] else str(row),
                lat[n],
                lon[n],
                [places[n][name] for name in ("city", "region", "country") if places[n] and places[n][name]],
                self._index.thumbnail(row) if n < self._options.ranked else None,
            )
            for n, row in enumerate(rows.tolist())
        ]


class Published:
    """References as a table in the layout of GeoRanker's GeoRanking.parquet has them, their pictures from a folder."""

    def __init__(self, table: Folder, name: str, images: Folder, options: GeoRankingOptions) -> None:
        with table.filesystem.open(table.path(name), "rb") as file:
            rows = pq.read_table(file, columns=["img_id", "ref_gps", "ref_img_id", "ref_texts"])
        self._row = {image: row for row, image in enumerate(rows["img_id"].to_pylist())}
        self._columns = {name: rows[name].combine_chunks() for name in ("ref_gps", "ref_img_id", "ref_texts")}
        self._images, self._options = images, options
        self._decoder = Decoder(DecodeOptions(View(1), thumbnail_px=options.picture_px))
        self._fetcher = Fetcher(FetchOptions(s3=images.s3))

    def rows(self, batch: pa.Table, lat: np.ndarray, lon: np.ndarray) -> Iterator[tuple[int, list[Reference]]]:
        uris = batch["uri"].to_pylist()
        for row in np.flatnonzero(np.asarray(batch["pixels"].combine_chunks().is_valid())).tolist():
            name = _base_name(uris[row])
            gps, names, texts = (column[self._row[name]].as_py() for column in self._columns.values())
            others = [n for n, other in enumerate(names) if other != name][: self._options.references]
            pictures = self._pictures([names[n] for n in others[: self._options.ranked]])
            pictures += [None] * (len(others) - len(pictures))
            yield (
                row,
                [Reference(names[n], *gps[n], texts[n], picture) for n, picture in zip(others, pictures, strict=True)],
            )

    def _pictures(self, names: Sequence[str]) -> list[bytes | None]:
        photos = [{"uri": f"{self._images.uri}/{name}", "size": None, "etag": None} for name in names]
        return [self._picture(fetched.data) for _, fetched in self._fetcher.stream(photos)]

    def _picture(self, data: bytes | PhotoError) -> bytes | None:
        if isinstance(data, PhotoError):
            return None
        return self._decoder.examine(data).get("thumbnail")


def _base_name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class GeoRanking:
    source: Retrieved | Published
    options: GeoRankingOptions

    def build(self, batch: pa.Table) -> pa.Table:
        """A batch of LOADED to one of GEORANKING, row for row; ``status`` is ``ready`` or ``failed``.

        A photo for which nothing is found fails as ``no_candidates``.
        """
        start = time.perf_counter()
        lat, lon, exif_lat, exif_lon = (batch[name].to_numpy() for name in ("lat", "lon", "exif_lat", "exif_lon"))
        given = valid_coordinates(lat, lon)
        lat, lon = np.where(given, lat, exif_lat), np.where(given, lon, exif_lon)
        names = ("id", "uri", "status", "error_kind", "error", "fetch_s", "decode_s")
        rows = [{name: row[name] for name in names} for row in batch.select(names).to_pylist()]
        thumbnails = batch["thumbnail"].combine_chunks()
        for row, references in self.source.rows(batch, lat, lon):
            if not references:
                rows[row] |= {"status": "failed", "error_kind": "no_candidates", "error": "no reference but itself"}
                continue
            at = np.array([(reference.lat, reference.lon) for reference in references])
            measure = geodesic_km if self.options.distance == "geodesic" else haversine_km
            rows[row] |= {
                "status": "ready",
                "img_id": _base_name(rows[row]["uri"]),
                "gps": [float(lat[row]), float(lon[row])],
                "ref_gps": at.tolist(),
                "ref_img_id": [reference.name for reference in references],
                "ref_texts": [reference.texts for reference in references],
                "ref_km": measure(lat[row], lon[row], at[:, 0], at[:, 1]).tolist(),
                "image": thumbnails[row].as_py(),
                "ref_images": [reference.image for reference in references[: self.options.ranked]],
            }
        seconds = (time.perf_counter() - start) / batch.num_rows
        return pa.Table.from_pylist([row | {"retrieve_s": seconds} for row in rows], GEORANKING)
