"""The fixed Arrow schemas: the manifest, the batches between stages, the result row."""

import numpy as np
import pyarrow as pa

from geoloc.geo.distance import THRESHOLDS_KM

CONFIDENCES = {threshold: f"confidence_{threshold}km" for threshold in THRESHOLDS_KM}
"""Columns: the probability that the error is below a threshold."""

MAX_CANDIDATES = 2048
"""Of a photo: FAISS's limit on a GPU."""

MANIFEST = pa.schema(
    {
        "id": pa.int64(),  # row number: unique, and stable for the life of the run folder
        "uri": pa.string(),  # absolute local path, or s3://bucket/key with the key as it stands
        "size": pa.int64(),  # bytes; null where the source does not tell
        "etag": pa.string(),  # changes with the content; null where the source does not tell
        "modified": pa.timestamp("us", "UTC"),
        "container": pa.string(),  # uri of the tar or Parquet file that it lies in; null where it is a file of its own
        "offset": pa.int64(),  # in the container: its first byte in a tar, its row in a table
        "archived": pa.bool_(),  # it must be restored from cold storage before it can be read
        "sidecars": pa.list_(pa.string()),  # uris of the XMP and Takeout files beside it that are read
        "sidecars_etag": pa.string(),  # changes with any of theirs
        "lat": pa.float64(),  # truth, where the source has it
        "lon": pa.float64(),
        "city": pa.string(),  # place names, where the source has them
        "region": pa.string(),
        "country": pa.string(),
        "author": pa.string(),  # who took it, where the source knows
        "replaces": pa.int64(),  # id of the row of an older version of the same photo
    }
)

CARRIED = ("id", "uri", "lat", "lon", "city", "region", "country", "author")
"""Columns of MANIFEST that photos take with them."""

LISTING = pa.schema([field for field in MANIFEST if field.name not in ("id", "replaces")])

METADATA = {
    "gps": pa.string(),  # none | read | unreadable | implausible; null where the photo was not opened
    "gps_problem": pa.string(),  # why a position that it carries was not read
    "exif_from": pa.string(),  # where its position came from: exif, xmp, or the name of a sidecar
    "gps_error_m": pa.float32(),  # how far off it may be, by the receiver; null where that is not told
    "taken_at": pa.timestamp("ms"),  # by the camera's clock, no time zone
    "taken_utc_offset": pa.int16(),  # that clock minus UTC, minutes; null where it is not known
    "taken_from": pa.string(),  # exif:DateTimeOriginal and the like, the name of a sidecar, or "file name"
    "camera": pa.string(),  # make and model
    "camera_serial": pa.string(),
    "owner": pa.string(),  # of the camera, or else the artist
}
"""What a photo says of itself."""

PICTURE = pa.struct({"pixels": pa.large_binary(), "height": pa.int32(), "width": pa.int32()})
"""height x width x 3 uint8."""


def packed(picture: np.ndarray) -> dict:
    """(h, w, 3) uint8 as a value of PICTURE.

    >>> packed(np.zeros((1, 2, 3), np.uint8))
    {'pixels': b'\\x00\\x00\\x00\\x00\\x00\\x00', 'height': 1, 'width': 2}
    """
    return {"pixels": picture.tobytes(), "height": picture.shape[0], "width": picture.shape[1]}


def unpacked(picture: dict | None) -> np.ndarray | None:
    """The other way round, read-only and not copied."""
    if picture is None:
        return None
    return np.frombuffer(picture["pixels"], np.uint8).reshape(picture["height"], picture["width"], 3)


LOADED = pa.schema(
    {
        **{name: MANIFEST.field(name).type for name in CARRIED},
        "status": pa.string(),  # null while the photo is on its way; "failed" or "kept" once it has been settled
        "error_kind": pa.string(),
        "error": pa.string(),
        "width": pa.int32(),  # as seen: after the EXIF orientation
        "height": pa.int32(),
        **METADATA,
        "exif_lat": pa.float64(),
        "exif_lon": pa.float64(),
        "pixels": pa.large_binary(),  # the encoder's view, size x size x 3 uint8; null if settled
        "thumbnail": pa.binary(),  # JPEG, only when an index is built
        "picture": PICTURE,  # the ranker's view, only when there is a ranker
        "fetch_s": pa.float32(),  # seconds this photo took, for the report
        "decode_s": pa.float32(),
    }
)

CANDIDATE = pa.struct(
    {
        "lat": pa.float64(),
        "lon": pa.float64(),
        "score": pa.float32(),  # the chooser's, or the ranker's; highest is chosen; null where it is not considered
        "similarity": pa.float32(),  # inner product with the photo's vector; null where it is generated
        "source": pa.string(),  # retrieved | generated | gazetteer (a generated name, looked up)
        "rank": pa.int32(),  # among the retrieved ones, by similarity, or among the generated ones, as they came; from 0
        "reference_id": pa.int64(),  # row of the index; null where it is generated
        "reference": pa.string(),  # uri of the reference photo; null in a gallery
        "place": pa.string(),
        "prompts": pa.list_(pa.string()),  # that a model named it in reply to, once a reply
        "reason": pa.string(),  # what the model said of it, if that is kept
        "extent_km": pa.float32(),  # of a cell: most of its photos lie within this of the place; null for a point
    }
)

PLACE = pa.struct(
    {
        "country_code": pa.string(),
        "country": pa.string(),
        "region": pa.string(),
        "city": pa.string(),
        "city_km": pa.float32(),
    }
)

GENERATION = pa.struct(
    {
        "replies": pa.int32(),
        "unread": pa.int32(),  # replies that tell no place
        "requests": pa.int32(),  # this and the next two paid for by this run; none where the replies were there
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
    }
)
"""What became of asking a model for candidates."""

RESULT = pa.schema(
    {
        "id": pa.int64(),
        "uri": pa.string(),
        "status": pa.string(),  # located | uncertain | kept | failed
        "lat": pa.float64(),  # the answer: null if uncertain or failed, the photo's own GPS if kept
        "lon": pa.float64(),
        "geometry": pa.binary(),  # WKB point
        "bbox": pa.struct(
            dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), pa.float64())
        ),  # of it, for readers to skip by
        "radius_km": pa.float32(),
        "confidence": pa.float32(),  # confidence_25km, or, uncalibrated and alone, the candidates' weight within 25 km
        **dict.fromkeys(CONFIDENCES.values(), pa.float32()),  # null if uncalibrated and alone
        "estimate_lat": pa.float64(),  # what the models say, also where that is too uncertain for an answer
        "estimate_lon": pa.float64(),
        "method": pa.string(),  # exif, the chooser, or the ranker, or the chooser and why not the ranker
        "place": PLACE,
        "candidates": pa.list_(CANDIDATE),
        "because": pa.string(),  # the photo that the answer is carried by, where its neighbours had a say; null where not
        "alone_lat": pa.float64(),  # where that is so, what the photo's own candidates say, and how sure that would be
        "alone_lon": pa.float64(),
        "alone_radius_km": pa.float32(),
        "alone_confidence": pa.float32(),
        "gps_doubt": pa.float32(),  # of a kept photo: probability, by its neighbours, that it was elsewhere
        "generation": GENERATION,  # null where no model was asked for candidates
        "error_kind": pa.string(),  # why it failed, or was not ranked, or there are no generated candidates
        "error": pa.string(),
        **METADATA,
        "width": pa.int32(),
        "height": pa.int32(),
        "true_lat": pa.float64(),  # from the source's lat/lon, or from EXIF when relocating
        "true_lon": pa.float64(),
    }
)

JOINT = ("because", "alone_lat", "alone_lon", "alone_radius_km", "alone_confidence", "gps_doubt")
"""Columns of RESULT that are told when all photos have their own answers, and locate each other."""

CLOCKS = pa.schema(
    {
        "household": pa.uint64(),
        "camera": pa.string(),
        "camera_serial": pa.string(),
        "seen_with": pa.string(),  # another camera, or "tracks"
        "first": pa.timestamp("ms"),  # by the camera's clock
        "last": pa.timestamp("ms"),
        "photos": pa.int64(),
        "ahead_minutes": pa.float64(),  # of what that one's clock showed, or of UTC
        "of_utc": pa.bool_(),
        "give_or_take_minutes": pa.float64(),
        "probability": pa.float64(),
        "moments": pa.int64(),  # photos taken where the other was then
    }
)
"""What cameras' clocks differed by while they were together: nothing is changed by it but who has a say on whom."""

CLOCKS_FILE = "context/clocks.parquet"
"""Of a run's folder."""

SECONDS = ("fetch_s", "decode_s", "embed_s", "retrieve_s", "generate_s", "rank_s")
"""Per-photo timings that travel with the batches and end in the report."""

LOCATED = pa.schema([*RESULT, *(pa.field(name, pa.float32()) for name in SECONDS)])

REFERENCE = pa.schema(
    {
        **{name: LOADED.field(name).type for name in ("id", "uri", "status", "error_kind", "error")},
        "lat": pa.float64(),
        "lon": pa.float64(),
        "place": PLACE,
        "author": pa.string(),  # the source's, or else the owner or artist of its metadata
        "vector": pa.list_(pa.float32()),
        "thumbnail": pa.binary(),
        **{name: pa.float32() for name in ("fetch_s", "decode_s", "embed_s")},
    }
)

GEORANKING = pa.schema(
    {
        **{name: LOADED.field(name).type for name in ("id", "uri", "status", "error_kind", "error")},  # ready | failed
        "img_id": pa.string(),  # this and the next four as published (GeoRanker's GeoRanking.parquet)
        "gps": pa.list_(pa.float64()),  # lat, lon
        "ref_gps": pa.list_(pa.list_(pa.float64())),  # most similar first, never the photo itself
        "ref_img_id": pa.list_(pa.string()),
        "ref_texts": pa.list_(pa.list_(pa.string())),  # city, region, country, as far as known
        "ref_km": pa.list_(pa.float64()),
        "image": pa.binary(),  # the photo, JPEG
        "ref_images": pa.list_(pa.binary()),  # of the first references, those that are ranked, JPEG
        **{name: pa.float32() for name in SECONDS if name not in ("generate_s", "rank_s")},
    }
)

POINT = pa.struct({"lat": pa.float64(), "lon": pa.float64()})

ASKING = {
    "vector": pa.list_(pa.float32()),  # the photo's
    "dissimilar": pa.list_(POINT),  # the references least similar to it, least first
    "thumbnail": LOADED.field("thumbnail").type,
}
"""What travels with LOCATED to where a model is asked for candidates."""

ANSWER = pa.struct(
    [
        LOCATED.field(name)
        for name in (
            *("status", "lat", "lon", "radius_km", "confidence", *CONFIDENCES.values(), "estimate_lat", "estimate_lon"),
            *("method", "place", "candidates", "error_kind", "error", "rank_s"),
        )
    ]
)
"""What a recipe says of a photo, beside what others say of it."""


def compared(recipes: int, pictures: bool = False) -> pa.Schema:
    """Photos with the answers of so many recipes, each in a column of ANSWER, null for a photo that failed."""
    photo = ("id", "uri", "status", "error_kind", "error", "true_lat", "true_lon")
    columns = {name: RESULT.field(name).type for name in photo}
    columns |= {f"answer_{number}": ANSWER for number in range(recipes)}
    columns |= dict.fromkeys(SECONDS, pa.float32())
    return pa.schema(columns | ({"picture": PICTURE} if pictures else {}))
