"""Tables as people have them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.context.reading import read_collection
from geoloc.errors import UsageError


def read(tmp_path, text: str):
    (tmp_path / "t.csv").write_text(text)
    return read_collection(str(tmp_path / "t.csv"))


def test_albums_and_numbers(tmp_path):
    table = read(
        tmp_path,
        "uri,album,sequence,lat,lon,known_lat,known_lon\nb,x,20,48.8,2.3,,\na,x,10,,,48.85,2.35\nc,y,10,40,500,,\n",
    )
    found = table.collection
    assert table.uri.to_pylist() == ["b", "a", "c"]
    assert found.chain[0] == found.chain[1] != found.chain[2]
    assert (found.position.tolist(), found.timed) == ([20, 10, 10], False)
    np.testing.assert_array_equal(found.known, [[np.nan] * 2, [48.85, 2.35], [np.nan] * 2])
    np.testing.assert_array_equal(found.candidates[:, 0], [[48.8, 2.3], [np.nan] * 2, [np.nan] * 2])
    assert found.shares.tolist() == [[1], [0], [0]]


def test_cameras_and_times(tmp_path):
    table = read(
        tmp_path,
        "uri;camera;taken_at;lat;lon\n"
        "a;X;2019:07:04 15:30:00;1;2\n"
        "b;X;2019-07-04T13:31:00Z;1;2\n"
        "c;X;2019-07-04 15:32:00+02:00;1;2\n"
        "d;X;1970-01-01 00:00:00;1;2\n",
    )
    position = table.collection.position
    assert table.collection.timed
    assert position[1] - position[0] == -119  # not all are told in UTC: the camera's clock
    assert position[2] - position[0] == 2
    assert np.isnan(position[3])
    assert any("1 photos have no time" in note for note in table.notes)


def test_candidates_of_any_spelling(tmp_path):
    pairs, objects = [[1, 2, 0.5], [3, 4, 0.9]], [{"lat": 5, "lon": 6}]
    rows = f'uri,album,candidates\na,x,"{json.dumps(pairs)}"\n'
    rows += 'b,x,"' + json.dumps(objects).replace('"', '""') + '"\nc,x,\n'
    found = read(tmp_path, rows).collection
    np.testing.assert_array_equal(found.candidates[0], [[3, 4], [1, 2]])
    np.testing.assert_array_equal(found.candidates[1], [[5, 6], [np.nan] * 2])
    assert found.shares[0, 0] > found.shares[0, 1] > 0
    assert found.shares[2].sum() == 0
    table = pa.table({"uri": ["a"], "album": ["x"], "candidates": [[{"lat": 1.0, "lon": 2.0, "score": 0.5}]]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_collection(str(tmp_path / "t.parquet")).collection
    np.testing.assert_array_equal(found.candidates, [[[1, 2]]])


def test_what_is_guessed_is_told(tmp_path):
    table = read(tmp_path, "uri,lat,lon\na,1,2\nb,1,2\n")
    assert table.collection.chain.tolist() == [0, 0]
    assert table.collection.position.tolist() == [0, 1]
    assert len(table.notes) == 2
    impossible = read(tmp_path, "uri,album,sequence,known_lat,known_lon\na,x,1,91,2\nb,x,2,0,0\nc,x,3,5,5\n")
    assert np.isnan(impossible.collection.known).any(1).tolist() == [True, True, False]
    assert any("2 known places" in note for note in impossible.notes)


def test_candidates_that_are_no_places_are_none(tmp_path):
    rows = 'uri,album,lat,lon,candidates\na,x,7,8,"[[91, 2, 0.9], [48, 2, 0.5]]"\nb,x,7,8,"[[NaN, NaN, 1]]"\n'
    found = read(tmp_path, rows).collection
    np.testing.assert_array_equal(found.candidates[:, 0], [[48, 2], [7, 8]])


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None]),
        pa.array([1, 2]),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.string_view()),
        pa.array(["a", "b"], pa.large_string()),
    ],
)
def test_names_of_any_type(tmp_path, column):
    pq.write_table(pa.table({"uri": column, "lat": [1.0, 2.0], "lon": [1.0, 2.0]}), tmp_path / "t.parquet")
    assert len(read_collection(str(tmp_path / "t.parquet")).uri) == 2


@pytest.mark.parametrize(
    "columns",
    [
        {"sequence": pa.array([2**62, 2**62 + 1])},
        {"sequence": pa.array([np.inf, 1.0])},
        {"taken_at": pa.array([None, None], pa.null())},
        {"taken_at": pa.array([0, 10**15], pa.timestamp("us", "Europe/Paris"))},
        {"album": pa.array([None, "x"])},
    ],
)
def test_columns_of_any_type(tmp_path, columns):
    names = pa.array(["a", "b"])
    pq.write_table(pa.table({"uri": names, "lat": [1.0, 2.0], "lon": [1.0, 2.0]} | columns), tmp_path / "t.parquet")
    position = read_collection(str(tmp_path / "t.parquet")).collection.position
    assert not np.isinf(position).any()


@pytest.mark.parametrize(
    "columns",
    [
        {"sequence": pa.array(["first", "second"])},
        {"lat": pa.array(["north", "south"])},
        {"album": pa.array([["x"], ["y"]])},
        {"uri": pa.array([b"\xff", b"a"])},
        {"candidates": pa.array(["[[" + "9" * 400 + ", 2]]", ""])},
        {"candidates": pa.array(["[" * 100_000, ""])},
        {"candidates": pa.array(['["12"]', ""])},
    ],
)
def test_columns_that_say_nothing(tmp_path, columns):
    table = {"uri": pa.array(["a", "b"]), "lat": [1.0, 2.0], "lon": [1.0, 2.0]} | columns
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"TABLE .*t\.parquet: "):
        read_collection(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,lat,lon\na,1,2\n", "has no column 'uri'; it has name, lat, lon"),
        ("uri,album\na,x\n", "says of no photo where it is"),
        ("uri,lat\na,1\n", "has lat without lon"),
        ("uri,album,lat,lon\n", "has no rows"),
        ("uri,album,lat,lon\na,x,north,2\n", "no lat and lon|north"),
        ('uri,album,candidates\na,x,"[[1]]"\n', "row 1: candidates are lists of"),
        ("uri,album,candidates\na,x,nonsense\n", "row 1: candidates are lists of"),
    ],
)
def test_what_cannot_be_read(tmp_path, text, message):
    with pytest.raises(UsageError, match=f"TABLE .*t.csv: .*({message})"):
        read(tmp_path, text)


def test_no_such_table(tmp_path):
    with pytest.raises(UsageError, match=r"TABLE .*none\.csv"):
        read_collection(str(tmp_path / "none.csv"))
