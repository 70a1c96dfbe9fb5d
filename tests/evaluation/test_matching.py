import numpy as np
import pyarrow as pa
import pytest

from geoloc.errors import UsageError
from geoloc.evaluation.matching import match
from geoloc.evaluation.positions import Positions


def positions(source, points=None, **ids):
    n = len(next(iter(ids.values())))
    points = np.array(points if points is not None else [(1.0, 2.0)] * n)
    return Positions(source, {name: pa.array(values) for name, values in ids.items()}, points[:, 0], points[:, 1])


@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ("a.jpg", "a.jpg"),
        ("s3://bucket/photos/é b.jpg", "é b.jpg"),
        ("/x/y/a.jpg", "other/a.jpg"),
        ("45_77_322.jpg", "45/77/322.jpg"),
        ("/images/45_77_322.jpg", "45/77/322.jpg"),
        ("45/77/322.jpg", "45_77_322.jpg"),
        ("a", "a.jpg"),
        ("73", "0073.jpg"),
        ("73.0", "73"),
    ],
)
def test_ids_that_mean_the_same_photo(predicted, true):
    found = match(positions("p", id=["zzz", predicted]), positions("t", id=[true]))
    assert found.row.tolist() == [1]
    assert (predicted == true) != ("matched with the truth 1 by" in found.notes[-1])


def test_the_whole_path_goes_before_the_file_name():
    predictions = positions("p", uri=["/b/1.jpg", "/a/1.jpg"])
    assert match(predictions, positions("t", uri=["/a/1.jpg", "/b/1.jpg"])).row.tolist() == [1, 0]


def test_a_file_name_that_is_not_unique_matches_nothing():
    predictions = positions("p", uri=["/a/1.jpg", "/b/1.jpg", "/a/2.jpg"])
    assert match(predictions, positions("t", id=["1.jpg", "2.jpg"])).row.tolist() == [-1, 2]


def test_the_columns_that_match_most_are_used():
    predictions = positions("p", uri=["/x/a.jpg", "/x/b.jpg"], id=["0", "1"])
    found = match(predictions, positions("t", id=["a.jpg", "b.jpg"], name=["1", "0"]))
    assert (found.row.tolist(), found.id_columns) == ([0, 1], ("uri", "id"))


def test_what_does_not_match_is_told():
    found = match(positions("p.csv", id=["a", "c", "d"]), positions("t.csv", id=["a", "b"]))
    assert found.row.tolist() == [0, -1]
    assert "1 photos of the truth have no row in p.csv, such as 'b'" in found.notes[0]
    assert "2 rows of p.csv are not in the truth, such as 'c', 'd'" in found.notes[1]


def test_nothing_matches():
    with pytest.raises(UsageError, match=r"no photo is in both.*p: `id` is 'a'.*t: `id` is 'b'"):
        match(positions("p", id=["a"]), positions("t", id=["b"]))


def test_repeated_ids():
    same = positions("p", id=["a", "a", "b"])
    found = match(same, positions("t", id=["a", "b"]))
    assert found.row.tolist() == [0, 2]
    assert "1 rows repeat an id, such as 'a'" in found.notes[0]
    with pytest.raises(
        UsageError, match="1 ids of column `id` occur several times with different positions, such as 'a'"
    ):
        match(positions("p", [(1, 2), (3, 4)], id=["a", "a"]), positions("t", id=["a"]))
    with pytest.raises(UsageError, match="each would count twice"):
        match(positions("p", id=["a"]), positions("t", id=["a", "a"]))


def test_ids_that_a_spreadsheet_rounded():
    found = match(positions("p", id=["1.23457E+11", "b"]), positions("t", id=["123456789012", "b"]))
    assert "1 ids of column `id` look as if a spreadsheet had rounded them, such as '1.23457E+11'" in found.notes[0]
    with pytest.raises(UsageError, match="spreadsheet"):
        match(positions("p", id=["4.7E+064"]), positions("t", id=["47"]))
