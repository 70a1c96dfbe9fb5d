import io
import struct
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from geoloc.photos.decode import PhotoFile
from geoloc.photos.exif import ExifBlock
from geoloc.photos.metadata import Metadata
from geoloc.photos.position import estimate_text
from geoloc.toy.archive import _exif


def metadata_of(exif: Image.Exif, kind: str = "JPEG") -> Metadata:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, kind, exif=exif.tobytes())
    return PhotoFile(buffer.getvalue()).carried.metadata()


def gps(lat, lat_ref, lon, lon_ref) -> Image.Exif:
    exif = Image.Exif()
    block = exif.get_ifd(ExifTags.IFD.GPSInfo)
    for tag, value in ((1, lat_ref), (2, lat), (3, lon_ref), (4, lon)):
        if value is not None:
            block[tag] = value
    return exif


def raw_gps(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF structure whose GPS directory has these tags (tag, type, count, data)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    root = struct.pack(f"{order}HHHIII", 1, ExifTags.IFD.GPSInfo, 4, 1, 26, 0)
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    start = 26 + 2 + 12 * len(entries) + 4
    for tag, kind, count, data in entries:
        stored = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(f"{order}I", start + len(values))
        values += data if len(data) > 4 else b""
        directory += struct.pack(f"{order}HHI", tag, kind, count) + stored
    return head + root + directory + bytes(4) + values


def rationals(*pairs: tuple[int, int], signed: bool = False, order: str = "<") -> bytes:
    return b"".join(struct.pack(order + ("ii" if signed else "II"), *pair) for pair in pairs)


RATIONAL, SRATIONAL, DOUBLE, ASCII, BYTE = 5, 10, 12, 2, 1
LAT = ((33, 1), (51, 1), (2448, 100))
LON = ((151, 1), (12, 1), (5508, 100))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF", "MPO"])
def test_position_time_and_camera_in_every_format(kind):
    known = metadata_of(_exif(-33.8568, 151.2153, 3), kind)
    assert known.position.state == "read"
    assert known.position.source == "exif"
    assert known.position.lat == pytest.approx(-33.8568, abs=1e-6)
    assert known.position.lon == pytest.approx(151.2153, abs=1e-6)
    assert known.taken.at == datetime(2023, 5, 1, 8, 51)
    assert known.taken.source == "exif:DateTimeOriginal"
    assert known.camera == "Toy Camera 1"


@given(st.floats(-90, 90), st.floats(-180, 180))
@settings(max_examples=50, deadline=None)
def test_position_survives_the_round_trip(lat, lon):
    position = metadata_of(_exif(lat, lon, 0)).position
    if round(abs(lat) * 3600, 4) == 0 and round(abs(lon) * 3600, 4) == 0:
        assert position.state == "implausible"
    else:
        assert position.lat == pytest.approx(lat, abs=1e-6)
        assert position.lon == pytest.approx(lon, abs=1e-6)


@pytest.mark.parametrize(
    ("latitude", "longitude", "references"),
    [
        ((RATIONAL, 1, rationals((338568, 10000))), (RATIONAL, 1, rationals((1512153, 10000))), (b"S\0", b"E\0")),
        ((RATIONAL, 2, rationals((33, 1), (51408, 1000))), (RATIONAL, 2, rationals((151, 1), (12918, 1000))), (b"S\0", b"E\0")),
        ((SRATIONAL, 1, rationals((-338568, 10000), signed=True)), (SRATIONAL, 1, rationals((1512153, 10000), signed=True)), ()),
        ((SRATIONAL, 3, rationals((-33, 1), (51, 1), (2448, 100), signed=True)), (SRATIONAL, 3, rationals(*LON, signed=True)), (b"S\0", b"E\0")),
        ((DOUBLE, 1, struct.pack("<d", -33.8568)), (DOUBLE, 1, struct.pack("<d", 151.2153)), ()),
        ((RATIONAL, 3, rationals(*LAT)), (RATIONAL, 3, rationals(*LON)), (b"South\0", b"East\0")),
        ((RATIONAL, 3, rationals(*LAT)), (RATIONAL, 3, rationals(*LON)), (b"s\0", b" e\0")),
        ((RATIONAL, 3, rationals((33, 1), (50, 1), (8448, 100))), (RATIONAL, 3, rationals((151, 1), (11, 1), (11508, 100))), (b"S\0", b"E\0")),
        ((RATIONAL, 3, rationals((33, 1), (51408, 1000), (0, 0))), (RATIONAL, 3, rationals((151, 1), (12918, 1000), (0, 0))), (b"S\0", b"E\0")),
        ((RATIONAL, 3, rationals((338568, 10000), (0, 0), (0, 0))), (RATIONAL, 3, rationals((1512153, 10000), (0, 0), (0, 0))), (b"S\0", b"E\0")),
        ((ASCII, 14, b"33,51.40800S\0\0"), (ASCII, 14, b"151,12.91800E\0"), ()),
    ],
)  # fmt: skip
def test_sydney_as_programs_write_it(latitude, longitude, references):
    tags = [(2, *latitude), (4, *longitude)]
    tags += [(tag, ASCII, len(text), text) for tag, text in zip((1, 3), references, strict=False)]
    position = ExifBlock(raw_gps(*sorted(tags))).position
    assert position.problem is None
    assert position.lat == pytest.approx(-33.8568, abs=1e-7)
    assert position.lon == pytest.approx(151.2153, abs=1e-7)


@pytest.mark.parametrize(
    ("block", "state", "why"),
    [
        (gps((0.0, 0.0, 0.0), "N", (0.0, 0.0, 0.0), "E"), "implausible", "0, 0 is no place"),
        (gps((133.0, 0.0, 0.0), "N", (251.0, 0.0, 0.0), "E"), "implausible", "133, 251 is no place"),
        (gps((IFDRational(0, 0), 0.0, 0.0), "N", (2.0, 0.0, 0.0), "E"), "unreadable", "cannot be read"),
        (gps((48.0, IFDRational(0, 0), IFDRational(0, 0)), "N", (2.0, 0.0, 0.0), "E"), "unreadable", "has no minutes"),
        (gps((48.0, 0.0, 0.0), None, (2.0, 0.0, 0.0), "E"), "unreadable", "no GPSLatitudeRef"),
        (gps((48.0, 0.0, 0.0), "N", None, "E"), "unreadable", "no GPSLongitude"),
        (gps((48.0, 0.0, 0.0), "X", (2.0, 0.0, 0.0), "E"), "unreadable", "GPSLatitudeRef 'X'"),
        (gps((48.0, 0.0, 0.0), "N", (2.0, 0.0, 0.0), "Ost"), "unreadable", "GPSLongitudeRef 'OST'"),
        (gps(None, "N", None, "E"), "none", None),
    ],
)
def test_what_cannot_be_told_is_a_state_of_its_own(block, state, why):
    position = metadata_of(block).position
    assert (position.state, position.lat, position.lon) == (state, None, None)
    assert why is None or why in position.problem


def test_a_sign_that_contradicts_its_reference_is_not_told():
    tags = [
        (1, ASCII, 2, b"N\0"),
        (2, SRATIONAL, 1, rationals((-338568, 10000), signed=True)),
        (3, ASCII, 2, b"E\0"),
        (4, SRATIONAL, 1, rationals((1512153, 10000), signed=True)),
    ]
    assert ExifBlock(raw_gps(*tags)).position.state == "unreadable"


def test_big_endian_and_bytes_for_references():
    tags = [
        (1, BYTE, 1, b"S"),
        (2, RATIONAL, 3, rationals(*LAT, order=">")),
        (3, BYTE, 1, b"E"),
        (4, RATIONAL, 3, rationals(*LON, order=">")),
    ]
    position = ExifBlock(raw_gps(*tags, order=">")).position
    assert (position.lat, position.lon) == pytest.approx((-33.8568, 151.2153), abs=1e-7)


def test_coordinates_that_the_block_has_lost_are_not_none():
    """The directory, or the values it points to, lie beyond the end of what is there."""
    whole = raw_gps(
        (1, ASCII, 2, b"S\0"),
        (2, RATIONAL, 3, rationals(*LAT)),
        (3, ASCII, 2, b"E\0"),
        (4, RATIONAL, 3, rationals(*LON)),
    )
    assert ExifBlock(whole).position.state == "read"
    assert ExifBlock(whole[:-50]).position.state == "unreadable"
    assert ExifBlock(whole[:40]).position.state == "unreadable"
    assert ExifBlock(whole[:28]).position.state == "unreadable"
    assert ExifBlock(whole[:26]).position.state == "unreadable"


def test_an_estimate_that_somebody_put_right_is_theirs():
    """exiftool leaves GPSProcessingMethod as it is where the coordinates alone are set."""
    text = b"ASCII\0\0\0" + estimate_text(48.0, 2.0, "top1").encode()
    for latitude, state in ((48.0, "none"), (48.5, "read")):
        exif = gps((latitude, 0.0, 0.0), "N", (2.0, 0.0, 0.0), "E")
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSProcessingMethod] = text
        assert metadata_of(exif).position.state == state


def test_our_own_estimate_is_no_position():
    exif = gps((48.0, 0.0, 0.0), "N", (2.0, 0.0, 0.0), "E")
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSProcessingMethod] = b"ASCII\0\0\0geoloc estimate (top1)"
    assert metadata_of(exif).position.state == "none"


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_a_malformed_block_never_raises(junk):
    for head in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0"):
        block = ExifBlock(head + junk)
        assert block.position.state in ("none", "read", "unreadable", "implausible")
        assert block.orientation in (None, *range(1, 9))
        assert block.taken is None or block.taken.at
        assert block.camera is None or isinstance(block.camera, str)


def test_orientation_out_of_range_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert metadata_of(exif).position.state == "none"
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=exif.tobytes())
    photo = PhotoFile(buffer.getvalue())
    assert (photo.carried.orientation, photo.width) == (1, 16)


def times(**values) -> Image.Exif:
    exif = Image.Exif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in values.items():
        (exif if name == "DateTime" else details)[ExifTags.Base[name]] = value
    return exif


@pytest.mark.parametrize(
    ("values", "at", "offset", "source"),
    [
        ({"DateTimeOriginal": "2015:02:01 14:42:59"}, datetime(2015, 2, 1, 14, 42, 59), None, "DateTimeOriginal"),
        ({"DateTimeOriginal": "2015:02:01 14:42:59+01:00"}, datetime(2015, 2, 1, 14, 42, 59), 60, "DateTimeOriginal"),
        ({"DateTimeOriginal": "2015-02-01T14:42:59.25Z"}, datetime(2015, 2, 1, 14, 42, 59, 250000), 0, "DateTimeOriginal"),
        (
            {"DateTimeOriginal": "2015:02:01 14:42:59", "SubsecTimeOriginal": "5", "OffsetTimeOriginal": "-03:30"},
            datetime(2015, 2, 1, 14, 42, 59, 500000),
            -210,
            "DateTimeOriginal",
        ),
        (
            {"DateTimeOriginal": "0000:00:00 00:00:00", "DateTimeDigitized": "2015:02:01 14:42:59"},
            datetime(2015, 2, 1, 14, 42, 59),
            None,
            "DateTimeDigitized",
        ),
        (
            {"DateTimeOriginal": "    :  :     :  :  ", "DateTimeDigitized": "2015:02:01 14:42:59", "OffsetTimeDigitized": "+05:30"},
            datetime(2015, 2, 1, 14, 42, 59),
            330,
            "DateTimeDigitized",
        ),
        (
            {"DateTimeOriginal": "2015:02:01 14:42:59", "DateTime": "2015:02:01 14:42:59", "OffsetTime": "+02:00"},
            datetime(2015, 2, 1, 14, 42, 59),
            120,
            "DateTimeOriginal",
        ),
        (
            {"DateTimeOriginal": "2015:02:01 14:42:59", "DateTime": "2020:01:01 00:00:00", "OffsetTime": "+02:00"},
            datetime(2015, 2, 1, 14, 42, 59),
            None,
            "DateTimeOriginal",
        ),
    ],
)  # fmt: skip
def test_times_as_programs_write_them(values, at, offset, source):
    taken = metadata_of(times(**values)).taken
    assert (taken.at, taken.utc_offset_minutes, taken.source) == (at, offset, f"exif:{source}")


@pytest.mark.parametrize(
    "text", ["2015:02:01 24:00:00", "2015:02:30 12:00:00", "2015:13:01 12:00:00", "2015:02:01", "", "soon"]
)
def test_what_was_no_time_is_null(text):
    assert metadata_of(times(DateTimeOriginal=text)).taken is None


def test_the_time_a_file_was_changed_is_never_the_time_it_was_taken():
    assert metadata_of(times(DateTime="2015:02:01 14:42:59")).taken is None


@pytest.mark.parametrize(
    ("clock", "offset"),
    [
        ((13, 30, 0), 120),
        ((9, 45, 20), 345),
        ((15, 29, 50), 0),
        ((13, 20, 0), None),
        ((15, 15, 0), None),
        ((0, 10, 0), None),
    ],
)
def test_the_time_of_a_fix_tells_the_offset_where_it_is_of_the_same_moment(clock, offset):
    exif = _exif(48.0, 2.0, 0)
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:07:04 15:30:00"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSDateStamp], gps[ExifTags.GPS.GPSTimeStamp] = "2019:07:04", tuple(map(float, clock))
    assert metadata_of(exif).taken.utc_offset_minutes == offset


def test_serial_number_and_owner():
    exif = _exif(48.0, 2.0, 0)
    exif[ExifTags.Base.Artist] = "Ada"
    assert (metadata_of(exif).camera_serial, metadata_of(exif).owner) == (None, "Ada")
    more = exif.get_ifd(ExifTags.IFD.Exif)
    more[ExifTags.Base.BodySerialNumber], more[ExifTags.Base.CameraOwnerName] = "0042\0\0", "Grace"
    assert (metadata_of(exif).camera_serial, metadata_of(exif).owner) == ("0042", "Grace")


@pytest.mark.parametrize(
    ("told", "error"), [(None, None), (IFDRational(65, 1), 65.0), (IFDRational(0, 1), None), (IFDRational(1, 0), None)]
)
def test_how_far_off_a_position_may_be(told, error):
    exif = _exif(48.0, 2.0, 0)
    if told is not None:
        exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSHPositioningError] = told
    assert metadata_of(exif).position.error_m == error
