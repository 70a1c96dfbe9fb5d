import io
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from geoloc.photos.decode import PhotoFile
from geoloc.photos.exif import Exif, read_exif
from geoloc.toy.archive import _exif


def photo_with(exif: Image.Exif, kind: str = "JPEG") -> Exif:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, kind, exif=exif.tobytes())
    return PhotoFile(buffer.getvalue()).exif


def gps(lat, lat_ref, lon, lon_ref) -> Image.Exif:
    exif = Image.Exif()
    block = exif.get_ifd(ExifTags.IFD.GPSInfo)
    for tag, value in ((1, lat_ref), (2, lat), (3, lon_ref), (4, lon)):
        if value is not None:
            block[tag] = value
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_position_time_and_camera_in_every_format(kind):
    exif = photo_with(_exif(-33.8568, 151.2153, 3), kind)
    assert exif.lat == pytest.approx(-33.8568, abs=1e-6)
    assert exif.lon == pytest.approx(151.2153, abs=1e-6)
    assert exif.taken_at == datetime(2023, 5, 1, 0, 49, 51)
    assert exif.camera == "Toy Camera 1"


@given(st.floats(-90, 90), st.floats(-180, 180))
@settings(max_examples=50, deadline=None)
def test_position_survives_the_round_trip(lat, lon):
    exif = photo_with(_exif(lat, lon, 0))
    if round(abs(lat) * 3600, 4) == 0 and round(abs(lon) * 3600, 4) == 0:
        assert exif.lat is None
    else:
        assert exif.lat == pytest.approx(lat, abs=1e-6)
        assert exif.lon == pytest.approx(lon, abs=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        gps((0.0, 0.0, 0.0), "N", (0.0, 0.0, 0.0), "E"),
        gps((133.0, 0.0, 0.0), "N", (251.0, 0.0, 0.0), "E"),
        gps((IFDRational(1, 0), 0.0, 0.0), "N", (2.0, 0.0, 0.0), "E"),
        gps((48.0, 0.0, 0.0), None, (2.0, 0.0, 0.0), "E"),
        gps((48.0, 0.0, 0.0), "N", None, "E"),
        gps((48.0, 0.0, 0.0), "X", (2.0, 0.0, 0.0), "E"),
        gps((48.0, 75.0, 0.0), "N", (2.0, 0.0, 0.0), "E"),
        gps((48.0, 0.0), "N", (2.0, 0.0, 0.0), "E"),
    ],
)
def test_what_is_no_position_is_not_given(block):
    exif = photo_with(block)
    assert exif.lat is None
    assert exif.lon is None


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_a_malformed_block_never_raises(junk):
    image = Image.new("RGB", (4, 4))
    image.format = "PNG"
    image.info["exif"] = b"Exif\0\0" + junk
    assert isinstance(read_exif(image), Exif)


def test_orientation_out_of_range_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert photo_with(exif).orientation == 1
