import geopandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geoloc.errors import UsageError
from geoloc.photos.tables import read_table
from geoloc.storage import S3Options


def read(path, text: str | None = None):
    if text is not None:
        path.write_text(text, encoding="utf-8")
    table, notes = read_table(str(path), S3Options())
    return [tuple(row.values())[:3] for row in table.to_pylist()], notes


@pytest.mark.parametrize(
    "text",
    [
        "uri,lat,lon\na.jpg,-33.5,151.25\n",
        "\ufeffURI, Latitude, Longitude\na.jpg, -33.5, 151.25\n",
        "SourceFile,GPSLatitude,GPSLongitude\na.jpg,-33.5,151.25\n",
        "SourceFile,GPSLatitude,GPSLatitudeRef,GPSLongitude,GPSLongitudeRef\na.jpg,33.5,South,151.25,E\n",
        'SourceFile,GPSLatitude,GPSLongitude\na.jpg,"33 deg 30\' 0.00"" S","151 deg 15\' 0.00"" E"\n',
        "file;lng;lat\na.jpg;151,25;-33,5\n",
        "path\tLAT\tLON\na.jpg\t-33.5\t151.25\n",
        "IMG_ID,AUTHOR,LAT,LON\na.jpg,x,-33.5,151.25\n",
        "id,true_lat,true_lon,filename\n7,-33.5,151.25,a.jpg\n",
    ],
)
def test_columns_are_recognised(tmp_path, text):
    assert read(tmp_path / "photos.csv", text) == ([("a.jpg", -33.5, 151.25)], [])


def test_the_equator_and_the_meridian_are_places(tmp_path):
    text = 'uri,lat,lon\na.jpg,"0.0 N","36.8 E"\nb.jpg,"51.5 N","0.0 E"\n'
    assert read(tmp_path / "photos.csv", text)[0] == [("a.jpg", 0.0, 36.8), ("b.jpg", 51.5, 0.0)]


def test_ids_are_text(tmp_path):
    rows, _ = read(tmp_path / "photos.csv", "uri,lat,lon\n000123,1,2\n1e5,1,2\n")
    assert [row[0] for row in rows] == ["000123", "1e5"]


def test_missing_coordinates_are_null(tmp_path):
    rows, _ = read(tmp_path / "photos.csv", "uri,lat,lon\na,,\nb,nan,NaN\nc,1,2\nd,None,N/A\n")
    assert rows == [("a", None, None), ("b", None, None), ("c", 1.0, 2.0), ("d", None, None)]


def test_coordinates_that_are_not_used_are_named(tmp_path):
    _, notes = read(tmp_path / "photos.csv", "uri,lat,lon,gps_lat_2,title\na,1,2,3,x\n")
    assert notes == ["column gps_lat_2: looks like coordinates and is not used"]
    rows, notes = read(tmp_path / "photos.csv", "uri,x,y\na,1,2\n")
    assert rows == [("a", None, None)]
    assert notes == ["column x, y: looks like coordinates and is not used"]


@pytest.mark.parametrize("encoded", ["geopandas", "no crs"])
def test_geoparquets_points(tmp_path, encoded):
    path = tmp_path / "photos.parquet"
    if encoded == "geopandas":
        points = [shapely.Point(151.25, -33.5), None]
        geopandas.GeoDataFrame({"uri": ["a", "b"]}, geometry=points, crs=4326).to_parquet(path)
    else:
        pq.write_table(
            pa.table({"uri": ["a", "b"], "geometry": [shapely.to_wkb(shapely.Point(151.25, -33.5)), None]}), path
        )
    assert read(path) == ([("a", -33.5, 151.25), ("b", None, None)], [])


def test_geoparquet_in_metres_is_refused(tmp_path):
    path = tmp_path / "photos.parquet"
    geopandas.GeoDataFrame({"uri": ["a"]}, geometry=[shapely.Point(1, 2)], crs=3857).to_parquet(path)
    with pytest.raises(UsageError, match=r"column `geometry` is in WGS 84 / Pseudo-Mercator"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,lat,lon,lat\na,1,2,3\n", "column `lat` is there 2 times"),
        ("uri,lat,lon\na,north,2\n", "column `lat`: 'north' in row 1 is no coordinate"),
        ("uri,lat,lon\na,1,2\n,3,4\n", "1 rows have no uri"),
        ("lat,lon\n1,2\n", r"has no column `uri` \(it has lat, lon\)"),
        ("uri,lat,lon\na,1\n", "cannot read it"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path / "photos.csv", text)
    assert "\n" not in str(caught.value)


def test_columns_of_lists_and_other_encodings(tmp_path):
    pq.write_table(pa.table({"uri": ["a"], "lat": [[1.0]], "lon": [[2.0]]}), tmp_path / "photos.parquet")
    with pytest.raises(UsageError, match=r"column `lat` holds list<.*one value a row is wanted"):
        read(tmp_path / "photos.parquet")
    (tmp_path / "photos.csv").write_bytes("uri,städt\n".encode("latin-1"))
    with pytest.raises(UsageError, match="no UTF-8 text"):
        read(tmp_path / "photos.csv")


def test_the_tables_of_bug_reports(shared_data):
    tables = shared_data / "field" / "tables"
    for name in ("04_latitude_names.csv", "11_header_spaces.csv", "17_etag_md5.csv", "47_geoparquet.parquet"):
        rows, notes = read(tables / name)
        assert (rows[0], notes) == (("p1.jpg", 48.85, 2.35), [])
    assert [row[0] for row in read(tables / "10_numeric_ids.csv")[0]] == ["000123", "000124"]
    with pytest.raises(UsageError, match="column `lat` is there 2 times"):
        read(tables / "27_dup_columns.csv")
