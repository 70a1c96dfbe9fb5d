"""Several indexes searched as one, and questions that leave out what gives answers away."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from geoloc.candidates.pool import Pooling
from geoloc.encoders.config import lite
from geoloc.estimate.finder import Finder
from geoloc.estimate.pooler import Pooler
from geoloc.estimate.questioner import Questioner
from geoloc.index.build import write_index
from geoloc.index.store import Index, IndexInfo
from geoloc.index.union import IndexUnion
from geoloc.schema import REFERENCE

D = 8


def index(path, vectors, lat, authors=None, region="R", name="a", thumbnails=True) -> Index:
    """At longitude 0."""
    vectors = np.asarray(vectors, np.float32)
    rows = [
        {
            "id": n,
            "uri": f"/{name}/{n}.jpg",
            "lat": float(lat[n]),
            "lon": 0.0,
            "place": {"country_code": "X", "region": region},
            "author": authors[n] if authors else None,
            "vector": vector,
            "thumbnail": f"{name}{n}".encode() if thumbnails else None,
        }
        for n, vector in enumerate(vectors)
    ]
    write_index(path, IndexInfo("photos", "w", "lite", "m", len(rows), D), [pa.Table.from_pylist(rows, REFERENCE)])
    return Index(path)


def axis(number: int, towards: int | None = None, share: float = 0.0) -> np.ndarray:
    vector = np.zeros(D)
    vector[number] = 1
    if towards is not None:
        vector[towards] = share
    return vector / np.linalg.norm(vector)


def pooler(*indexes: Index, **pooling) -> Pooler:
    return Pooler(
        [Finder(one, lite(), torch.device("cpu")) for one in indexes], Pooling(**{"prior_weight": 0, **pooling})
    )


def test_rows_of_two_indexes_are_numbered_through(tmp_path):
    one = index(tmp_path / "a", [axis(0), axis(1)], [10, 20])
    two = index(tmp_path / "b", [axis(0, 1, 0.5), axis(2)], [30, 40], name="b")
    union = IndexUnion([one, two])
    assert (union.rows, union.starts.tolist()) == (4, [0, 2, 4])
    assert union.uri.to_pylist() == ["/a/0.jpg", "/a/1.jpg", "/b/0.jpg", "/b/1.jpg"]
    assert union.uri.take(pa.array([3, 0])).to_pylist() == ["/b/1.jpg", "/a/0.jpg"]
    assert [union.thumbnail(row) for row in range(4)] == [b"a0", b"a1", b"b0", b"b1"]
    assert (union.nearest(40.001, 0, 1), union.nearest(10.001, 0, 1), union.nearest(50, 0, 1)) == (3, 0, None)
    found = pooler(one, two).search(axis(0)[None], 4)
    assert found.row.tolist() == [[0, 2, 1, 3]]  # by similarity, whichever they are of
    assert found.lat[0] == pytest.approx([10, 30, 20, 40])
    assert found.evidence.shape == (1, 4, 10)


def test_no_photos_have_no_places(tmp_path):
    found = pooler(index(tmp_path / "a", [axis(0)], [10])).search(np.zeros((0, D), np.float32), 3)
    assert found.row.shape == (0, 3)


def test_a_question_is_asked_without_the_photo_its_twin_and_its_photographers_others(tmp_path):
    """Of five photos: itself; a twin next to it; one as alike, but far away; one by its photographer; and one by somebody else."""
    vectors = [axis(0), axis(0, 1, 0.01), axis(0, 1, 0.01), axis(0, 2, 0.3), axis(0, 3, 0.6)]
    photos = index(tmp_path / "a", vectors, [10, 10.001, 50, 20, 30], ["me", "you", "you", "me", None])
    questioner = Questioner(pooler(photos), photos, np.array([0]), first_row=0)
    (hits,) = questioner.hits(slice(0, 1))
    assert hits.row.tolist() == [[2, 4, -1, -1, -1]]
    elsewhere = index(tmp_path / "b", vectors, [10, 10.001, 50, 20, 30], ["me", None, "you", None, "me"], name="b")
    (hits,) = Questioner(pooler(elsewhere), photos, np.array([0]), first_row=None).hits(slice(0, 1))
    assert hits.row.tolist() == [[2, 3, -1, -1, -1]]  # the first is a twin, too


def test_photos_of_nobody_known_are_by_themselves(tmp_path):
    photos = index(tmp_path / "a", [axis(n) for n in range(4)], range(4), ["me", None, "me", None])
    questioner = Questioner(pooler(photos), photos, np.arange(4), first_row=0)
    assert questioner.authors == 1
    assert len(set(questioner.group)) == 3
    assert questioner.group[0] == questioner.group[2]
