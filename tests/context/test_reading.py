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
