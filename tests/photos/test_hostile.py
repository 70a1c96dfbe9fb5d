"""Files that were made to cost their reader: each is read, or is a row with the reason, and a pixel more than allowed is refused."""

import pytest

from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.views import View
from tests.hostile import hostile

PIXELS = 240_000
PLACE = {"uri": "a", "lat": None, "lon": None}
FILES = hostile(PIXELS / 1e6, scans=200, frames=50, bomb_mb=100)
NOT_IMAGES = {"SVG", "PostScript", "HTML with a JPEG in it"}


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecodeOptions(View(32), PIXELS, max_seconds=5)) as decoder:
        yield decoder


@pytest.mark.parametrize("name", FILES)
def test_it_is_read_or_refused_by_name(decoder, name):
    row = decoder.examine(FILES[name], PLACE)
    if name in NOT_IMAGES:
        assert row["error_kind"] == "not_an_image"
    elif "scans" in name:
        assert row["error_kind"] == "too_many_scans"
    else:
        assert row.get("error") is None
        assert len(row["pixels"]) == 32 * 32 * 3


@pytest.mark.parametrize(
    "name", ["JPEG", "PNG", "WebP, lossless", "QOI", "BMP, run-length", "TIFF, floats", "HEIF", "AVIF"]
)
def test_a_pixel_more_than_allowed_is_too_many(decoder, name):
    seen = decoder.examine(FILES[name], PLACE)
    with Decoder(DecodeOptions(View(32), seen["width"] * seen["height"] - 1)) as stricter:
        assert stricter.examine(FILES[name], PLACE)["error_kind"] == "too_many_pixels"
