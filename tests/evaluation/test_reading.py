import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.errors import UsageError
from geoloc.evaluation.datasets import DATASETS, find, read_retrieved, read_truth, recognise
from geoloc.evaluation.reading import read_positions
from geoloc.evaluation.recognition import Columns
from geoloc.storage import S3Options

S3 = S3Options()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("role", "head"),
    [
        ("truth", "IMG_ID,AUTHOR,LAT,LON,S3_Label"),
        ("truth", "IMG_FILE,LAT,LON"),
        ("truth", "image,lng,lat,geocell_idx_yfcc"),
        ("truth", "id,latitude,longitude,country"),
        ("truth", "uri,predicted_lat,predicted_lon,true_lat,true_lon"),
        ("predictions", "id,predicted_lat,predicted_lon"),
        ("predictions", "IMG_ID,LAT,LON,pred_lat,pred_lon"),
        ("predictions", "img_id;latitude_pred;longitude_pred"),
        ("predictions", "pano_id\tlat\tlng"),
    ],
)
def test_columns_are_recognised(tmp_path, role, head):
    """Whatever else is in the table is -1."""
    separator = next(s for s in "\t;," if s in head)
    wanted = {"truth": ("true", ""), "predictions": ("pred", "")}[role]
    names = head.split(separator)
    lats = [n for n in names if "lat" in n.lower()]
    lons = [n for n in names if "lon" in n.lower() or "lng" in n.lower()]
    lat = next((n for n in lats if wanted[0] in n), lats[0])
    lon = next((n for n in lons if wanted[0] in n), lons[0])
    values = {names[0]: "007.jpg", lat: "48.5", lon: "2.25"}
    path = write(tmp_path / "t.csv", f"{head}\n{separator.join(values.get(n, '-1') for n in names)}\n")
    found = read_positions(path, role)
    assert (found.lat.tolist(), found.lon.tolist()) == ([48.5], [2.25])
    ids = found.ids.get(names[0])
    assert ids is None or ids.to_pylist() == ["007.jpg"]


def test_columns_are_named(tmp_path):
    path = write(tmp_path / "t.csv", "who,y,x\na,1,2\n")
    with pytest.raises(UsageError, match=r"TRUTH .*no column that looks like an id \(it has who, y, x\)"):
        read_positions(path, "truth")
    with pytest.raises(UsageError, match="no column that looks like coordinates"):
        read_positions(path, "truth", Columns(id="who"))
    with pytest.raises(UsageError, match="no column `z`"):
        read_positions(path, "truth", Columns("who", "z", "x"))
    with pytest.raises(UsageError, match="name both"):
        read_positions(path, "truth", Columns("who", lat="y"))
    found = read_positions(path, "truth", Columns("who", "y", "x"))
    assert (found.lat[0], found.lon[0]) == (1, 2)


def test_no_answer_is_nan(tmp_path):
    path = write(tmp_path / "t.csv", "id,lat,lon\na,NaN,1\nb,None,\nc,3,4\n")
    assert read_positions(path, "predictions").lat.tolist() == pytest.approx([np.nan, np.nan, 3], nan_ok=True)
    with pytest.raises(UsageError, match="line 2 has no lat and lon: 'a,north,1"):
        read_positions(write(tmp_path / "w.csv", "id,lat,lon\na,north,1\n"), "predictions")


SUMMARY = """
street acc (1km),city acc (25km),region acc (200km),country acc (750km),continent acc (2500km),mean deviation (km)
0.135021,0.350211,0.49789,0.64135,0.797468,1827.76
"""
"""How TIBHannover's GeoEstimation ends its tables of predictions; the numbers look like a photo's row."""
TIB = """img_id,gt_lat,predicted_lat,gt_long,predicted_long,great_circle_distance
Ireland_00007.jpg,53.360182,53.342887,-6.188049,-6.184093,1.94
Italy_00100.jpg,44.30226,44.279853,9.212894,9.349590,11.16
"""


@pytest.mark.parametrize(("role", "lat"), [("predictions", [53.342887, 44.279853]), ("truth", [53.360182, 44.30226])])
def test_a_summary_at_the_end_is_left_out_and_told(tmp_path, caplog, role, lat):
    found = read_positions(write(tmp_path / "base_M.csv", TIB + SUMMARY), role)
    assert found.lat.tolist() == lat
    assert found.ids["img_id"].to_pylist() == ["Ireland_00007.jpg", "Italy_00100.jpg"]
    assert "base_M.csv: its last lines, from line 5 on, are no photos and are left out (street acc (1km)" in caplog.text


def test_a_line_that_is_no_row_is_named(tmp_path):
    row = "b.jpg,1,here,2,3,4\n"
    for rest in (row, row + "c.jpg,1,2,3,4,5\n", "\n" + row + "c.jpg,1,2,3,4,5\n" * 12):
        number = 4 + rest.startswith("\n")
        message = rf"line {number} has no predicted_lat and predicted_long: 'b\.jpg,1,here"
        with pytest.raises(UsageError, match=message):
            read_positions(write(tmp_path / "p.csv", TIB + rest), "predictions")


def test_parquet_with_pairs_and_integer_ids(tmp_path):
    pq.write_table(pa.table({"img_id": [7, 8], "gps": [[1.0, 2.0], None]}), tmp_path / "t.parquet")
    found = read_positions(str(tmp_path / "t.parquet"), "truth")
    assert found.ids["img_id"].to_pylist() == ["7", "8"]
    assert found.lat.tolist() == pytest.approx([1, np.nan], nan_ok=True)


def test_georankers_lists_are_candidates_and_not_the_truth_beside_them(tmp_path):
    path = write(
        tmp_path / "t.csv", "IMG_ID,LAT,LON,candidate_gps_lis\na,1,2,\"['[3.5, -4.0]', '[5.0, 6.0]']\"\nb,1,2,[]\n"
    )
    found = read_positions(path, "predictions")
    assert found.lat.tolist() == pytest.approx([3.5, np.nan], nan_ok=True)
    ((_, lists),) = found.candidates()
    assert [[(c["lat"], c["lon"]) for c in photo] for photo in lists.to_pylist()] == [[(3.5, -4.0), (5.0, 6.0)], []]
    assert read_positions(path, "truth").lat.tolist() == [1, 1]


def test_retrieved_rows_of_a_database(tmp_path):
    truth = read_positions(write(tmp_path / "t.csv", "IMG_ID,LAT,LON\na,1,2\nb,3,4\n"), "truth")
    database = write(tmp_path / "d.csv", "IMG_ID,LAT,LON\nx,10,11\ny,20,21\nz,30,31\n")
    np.save(tmp_path / "I.npy", np.array([[2, 0], [1, 1]]))
    found = read_retrieved(str(tmp_path / "I.npy"), database, truth, S3)
    assert (found.lat.tolist(), found.lon.tolist()) == ([30, 20], [31, 21])
    assert found.has_candidates
    with pytest.raises(UsageError, match="--database"):
        read_retrieved(str(tmp_path / "I.npy"), None, truth, S3)
    np.save(tmp_path / "J.npy", np.array([[3], [0]]))
    with pytest.raises(UsageError, match="names row 3"):
        read_retrieved(str(tmp_path / "J.npy"), database, truth, S3)


def test_records_of_osv5ms_loader(tmp_path):
    info = {"p1.jpg": ["x", "latitude: 1.5", "longitude: -2.5", "y", "z"]}
    found = read_truth(write(tmp_path / "im2gps/info.json", json.dumps(info)), None, Columns(), S3)
    assert (found.ids["id"].to_pylist(), found.lat.tolist(), found.lon.tolist()) == (["p1.jpg"], [1.5], [-2.5])
    line = "\t".join(["0", "77", *"abcdefghij", "-2.5", "1.5", "z"])
    found = read_truth(write(tmp_path / "yfcc4k/info.txt", line + "\n"), None, Columns(), S3)
    assert (found.ids["id"].to_pylist(), found.lat.tolist(), found.lon.tolist()) == (["77"], [1.5], [-2.5])
    with pytest.raises(UsageError, match="not what its name says"):
        read_truth(write(tmp_path / "x/info.txt", "1\t2\n"), None, Columns(), S3)


def test_a_missing_data_set_says_where_it_is_and_how_it_looks():
    for data in DATASETS.values():
        with pytest.raises(UsageError) as told:
            read_truth("/nowhere/truth.csv", data, Columns(), S3)
        assert data.where in str(told.value)
        assert data.layout in str(told.value)
    with pytest.raises(UsageError, match="--dataset im2gps4k"):
        find("im2gps4k")


def test_data_sets_are_recognised_by_file_name():
    names = {
        "/x/im2gps_places365.csv": "im2gps",
        "/x/im2gps3k_places365.csv": "im2gps3k",
        "yfcc4k_places365.csv": "yfcc4k",
        "yfcc25600_places365.csv": "yfcc26k",
        "/data/osv5m/test.csv": "osv5m",
        "truth.csv": None,
    }
    for path, name in names.items():
        assert (recognise(path) and recognise(path).name) == name
