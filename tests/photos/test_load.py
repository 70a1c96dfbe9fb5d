import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader, pixel_array
from geoloc.photos.views import View
from geoloc.schema import LOADED, MANIFEST
from geoloc.toy.archive import _exif


@pytest.fixture
def listing(tmp_path) -> pa.Table:
    """A plain photo, one with GPS, one that is none, one that is missing, one whose place the source tells."""
    Image.new("RGB", (100, 60), "red").save(tmp_path / "plain.jpg", exif=_exif(None, None, 1).tobytes())
    Image.new("RGB", (100, 60), "blue").save(tmp_path / "gps.jpg", exif=_exif(10.0, 20.0, 2).tobytes())
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    Image.new("RGB", (60, 100), "lime").save(tmp_path / "told.png")
    names = ["plain.jpg", "gps.jpg", "junk.jpg", "missing.jpg", "told.png"]
    rows = [{"id": number, "uri": str(tmp_path / name)} for number, name in enumerate(names)]
    rows[4] |= {"lat": 1.0, "lon": 2.0}
    return pa.Table.from_pylist(rows, MANIFEST)


def load(listing: pa.Table, **options) -> pa.Table:
    batches = list(PhotoLoader(LoadOptions(DecodeOptions(View(32), **options))).load(listing, batch_rows=2))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    return pa.concat_tables(batches)


def test_one_row_a_photo_whatever_is_wrong(listing):
    table = load(listing)
    assert table.schema == LOADED
    assert table["id"].to_pylist() == [0, 1, 2, 3, 4]
    assert table["status"].to_pylist() == [None, None, "failed", "failed", None]
    assert table["error_kind"].to_pylist() == [None, None, "not_an_image", "not_found", None]
    assert table["width"].to_pylist() == [100, 100, None, None, 60]
    assert table["exif_lat"].to_pylist()[1] == pytest.approx(10)
    pixels, rows = pixel_array(table, 32)
    assert rows.tolist() == [0, 1, 4]
    assert np.abs(pixels.reshape(3, -1, 3).mean(axis=1) - [(254, 0, 0), (0, 0, 254), (0, 255, 0)]).max() < 2


def test_pixels_of_a_slice_and_of_nothing(listing):
    table = load(listing)
    pixels, rows = pixel_array(table.slice(4, 1), 32)
    assert rows.tolist() == [0]
    assert pixels[0, 0, 0].tolist() == [0, 255, 0]
    pixels, rows = pixel_array(table.slice(2, 2), 32)
    assert pixels.shape == (0, 32, 32, 3)
    assert rows.tolist() == []


def test_a_photo_with_gps_is_kept_without_looking_at_it(listing):
    table = load(listing, keep_located=True)
    assert table["status"].to_pylist() == [None, "kept", "failed", "failed", None]
    assert pixel_array(table, 32)[1].tolist() == [0, 4]


def test_references_need_a_place_and_get_a_thumbnail(listing):
    table = load(listing, need_position=True, thumbnail_px=50)
    assert table["error_kind"].to_pylist() == ["no_position", None, "not_an_image", "not_found", None]
    sizes = [Image.open(io.BytesIO(data)).size for data in table["thumbnail"].drop_null().to_pylist()]
    assert sizes == [(50, 30), (30, 50)]
