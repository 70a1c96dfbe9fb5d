import json
from pathlib import Path

import geoclip
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from geoloc.encoders.config import GEOCLIP_SCALE, lite
from geoloc.encoders.config import geoclip as geoclip_config
from geoloc.encoders.geoclip import geoclip_weights
from geoloc.errors import UsageError
from geoloc.index import rows, store
from geoloc.index.build import write_index
from geoloc.index.gallery import write_gallery
from geoloc.index.rows import in_order, indexed_rows
from geoloc.index.search import ExactSearcher, ReRanked, exact_search
from geoloc.index.store import Index, IndexInfo, check_index, checksum, local_copy, open_index, read_info
from geoloc.results.parts import Parts
from geoloc.schema import PLACE, REFERENCE
from geoloc.storage import Folder


def references(vectors: np.ndarray, first: int = 0, failed: tuple[int, ...] = ()) -> pa.Table:
    rows = []
    for number, vector in enumerate(vectors, first):
        row = {"id": number, "uri": f"/photos/{number}.jpg", "lat": number / 100, "lon": -number / 100}
        row |= {"status": "failed" if number in failed else "indexed", "place": {"country": "X", "city": f"c{number}"}}
        row |= {"vector": None if number in failed else vector, "thumbnail": None if number % 3 else b"jpeg%d" % number}
        rows.append(row)
    return pa.Table.from_pylist(rows, REFERENCE)


def unit(random, rows: int, dimension: int = 16) -> np.ndarray:
    vectors = random.normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def vectors(random):
    return unit(random, 300)


def write(path, vectors, **options) -> IndexInfo:
    info = IndexInfo("photos", "encoder-1", "lite", "m", len(vectors), vectors.shape[1])
    return write_index(path, info, (references(vectors[i : i + 70], i) for i in range(0, len(vectors), 70)), **options)


def test_what_is_written_is_read(tmp_path, vectors):
    info = write(tmp_path, vectors)
    index = open_index(Folder(str(tmp_path)))
    assert index.info == info == read_info(Folder(str(tmp_path)))
    assert np.array_equal(index.vectors, vectors)
    assert (index.lat[7], index.lon[7], index.uri[7].as_py()) == (0.07, -0.07, "/photos/7.jpg")
    assert index.place.type == PLACE
    assert index.place[7]["city"].as_py() == "c7"
    assert [index.thumbnail(row) for row in (0, 1, 2, 3, 297)] == [b"jpeg0", None, None, b"jpeg3", b"jpeg297"]


def test_exact_search_is_the_whole_product(vectors, random):
    queries = unit(random, 11)
    scores, rows = ExactSearcher(vectors).search(queries, 20)
    product = queries @ vectors.T
    assert np.array_equal(rows, np.argsort(-product, axis=1)[:, :20])
    assert np.allclose(scores, np.take_along_axis(product, rows, axis=1), atol=1e-6)


@pytest.mark.parametrize("kind", ["ivfpq", "hnsw"])
def test_approximate_search_tells_its_recall(tmp_path, random, kind):
    centres = unit(random, 40)
    vectors = unit(random, 12_000) * 0.3 + centres[random.integers(0, 40, 12_000)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    info = write(tmp_path, vectors, ann=kind)
    assert info.ann["kind"] == kind
    searcher = ReRanked.open(vectors, tmp_path / "ann.faiss", info.ann)
    queries = unit(random, 1000) * 0.3 + centres[random.integers(0, 40, 1000)]
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    product = queries @ vectors.T
    true = np.argsort(-product, axis=1)[:, :20]
    scores, found = searcher.search(queries, 20)
    assert np.allclose(scores, np.take_along_axis(product, found, axis=1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    recall = {
        "recall@1": (found[:, 0] == true[:, 0]).mean(),
        "recall@20": np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]),
    }
    assert info.ann["queries"] == 1000
    for name, share in recall.items():
        assert share == pytest.approx(info.ann[name], abs=0.05)
        assert share > 0.9
    assert info.ann["recall@1 without rerank"] <= info.ann["recall@1"]


@pytest.mark.parametrize("kind", ["ivfpq", "hnsw"])
def test_approximate_search_knows_every_row(tmp_path, vectors, kind):
    """Those too that its recall was measured with; and what it does not find is row -1."""
    info = write(tmp_path, vectors, ann=kind)
    searcher = ReRanked.open(vectors, tmp_path / "ann.faiss", info.ann)
    scores, rows = searcher.search(vectors, 1)
    assert rows[:, 0].tolist() == list(range(300))
    assert scores == pytest.approx(1, abs=1e-5)
    _, rows = searcher.search(vectors[:3], 300)
    assert all(len(set(found[found >= 0])) == (found >= 0).sum() for found in rows)


def test_damage_is_found_and_named(tmp_path, vectors, monkeypatch):
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "index", vectors)
    folder = Folder(str(tmp_path / "index"))
    file = tmp_path / "index" / "vectors.npy"
    check_index(folder)
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"vectors\.npy is damaged"):
            check_index(folder)
    file.write_bytes(data[:-4])
    with pytest.raises(UsageError, match=r"vectors\.npy is damaged"):
        check_index(folder)
    file.unlink()
    with pytest.raises(UsageError, match=r"vectors\.npy is missing"):
        check_index(folder)


def test_a_local_index_is_read_in_full_once(tmp_path, vectors, monkeypatch):
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "index", vectors)
    read = []
    monkeypatch.setattr(store, "checksum", lambda file: read.append(file.name) or checksum(file))
    for _ in range(3):
        check_index(Folder(str(tmp_path / "index")))
    assert sorted(read) == sorted(read_info(Folder(str(tmp_path / "index"))).files)


def test_what_is_no_index_is_refused(tmp_path):
    folder = Folder(str(tmp_path))
    with pytest.raises(UsageError, match=r"no index\.json there; make one"):
        read_info(folder)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(UsageError, match=r"cannot read index\.json"):
        read_info(folder)
    (tmp_path / "index.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UsageError, match="format 99"):
        read_info(folder)


def test_a_buckets_index_is_copied_once_and_checked(tmp_path, vectors, s3, monkeypatch):
    monkeypatch.setenv("GEOLOC_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "index", vectors)
    s3.create_bucket(Bucket="indexes")
    for file in (tmp_path / "index").iterdir():
        s3.upload_file(str(file), "indexes", f"one/{file.name}")
    folder = Folder("s3://indexes/one")
    check_index(folder)
    monkeypatch.setattr(store, "_RANGE_BYTES", 1_000)
    path, index = local_copy(folder), open_index(folder)
    assert np.array_equal(index.vectors, vectors)
    assert not (path / "thumbnails.bin").exists()
    assert [index.thumbnail(row) for row in (0, 1, 297)] == [b"jpeg0", None, b"jpeg297"]  # fetched
    assert local_copy(folder, thumbnails=True) == path
    s3.delete_object(Bucket="indexes", Key="one/thumbnails.bin")
    assert open_index(folder).thumbnail(297) == b"jpeg297"
    (path / "index.json").unlink()  # as if whoever copied it was killed before the end
    assert np.array_equal(open_index(folder).vectors, vectors)
    with pytest.raises(UsageError, match=r"thumbnails\.bin is missing"):
        check_index(folder)
    s3.put_object(Bucket="indexes", Key="one/vectors.npy", Body=b"gone")
    assert local_copy(folder) == path
    s3.put_object(
        Bucket="indexes",
        Key="one/index.json",
        Body=read_info(Folder(str(path))).to_json().replace(b"encoder-1", b"encoder-2"),
    )
    with pytest.raises(UsageError, match=r"vectors\.npy is damaged"):
        local_copy(folder)
    assert len([p for p in (tmp_path / "cache" / "index").iterdir() if p.is_dir()]) == 1


def test_rows_come_in_order_from_overlapping_parts(tmp_path, random, monkeypatch):
    parts = Parts(Folder(str(tmp_path)))
    table = references(unit(random, 100), failed=(3, 50, 99))
    order = np.minimum(np.arange(100) // 10 * 10 + random.integers(0, 25, 100), 10_000).argsort(kind="stable")
    for start in range(0, 100, 9):
        parts.add(table.take(order[start : start + 9]))
    assert indexed_rows(parts) == 97
    monkeypatch.setattr(rows, "BUCKET_BYTES", 4 * table.nbytes // 10)
    batches = list(in_order(parts, tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.name not in parts.names()] == []
    ids = np.concatenate([batch["id"].to_numpy() for batch in batches])
    assert np.array_equal(ids, np.setdiff1d(np.arange(100), [3, 50, 99]))
    assert max(batch.num_rows for batch in batches) < 60
    assert list(in_order(Parts(Folder(str(tmp_path / "none"))), tmp_path)) == []


def test_gallery_is_an_index_of_coordinates(tmp_path, small_gallery):
    info = write_gallery(tmp_path, geoclip_config())
    index = Index(tmp_path)
    assert (info.kind, info.rows, info.dimension) == ("gallery", small_gallery, 512)
    scores, rows = exact_search(index.vectors, np.array(index.vectors[500:503]), 1)
    assert rows[:, 0].tolist() == [500, 501, 502]
    assert scores[:, 0] == pytest.approx(1, abs=1e-5)
    assert index.uri[0].as_py() is None
    assert index.place[500]["country"].as_py()
    assert lite().geoclip_head is False


def test_each_place_once_where_the_package_names_it_often(monkeypatch, tmp_path, random):
    """The package's top five hold a place as often as its gallery does, and its probability is shared by so many rows.

    Of its gallery the places that are named at least three times, as often as they are.
    """
    package = Path(geoclip.model.__file__).parent / "gps_gallery" / "coordinates_100K.csv"
    table = pd.read_csv(package)
    assert (len(table), len(table.drop_duplicates())) == (100_000, 94_123)
    times = table.groupby(["LAT", "LON"]).LAT.transform("size")
    points = torch.tensor(table[times >= 3].to_numpy(np.float32))
    peer = geoclip.GeoCLIP.__new__(geoclip.GeoCLIP)
    torch.nn.Module.__init__(peer)
    peer.image_encoder, peer.location_encoder = torch.nn.Identity(), geoclip.LocationEncoder().eval()
    peer.logit_scale = torch.nn.Parameter(geoclip_weights("logit_scale_weights.pth"))
    seen = torch.from_numpy(unit(random, 20, 512))
    with torch.inference_mode():
        top = peer(seen, points).softmax(dim=-1).topk(200, dim=1)
    places = table[times >= 3].drop_duplicates().to_numpy()
    monkeypatch.setattr("geoloc.index.gallery.geoclip_gallery", lambda: (places[:, 0], places[:, 1]))
    write_gallery(tmp_path, geoclip_config())
    index = Index(tmp_path)
    similarity, rows = exact_search(index.vectors, seen.numpy(), 5)
    weights = np.exp(GEOCLIP_SCALE * (seen.numpy() @ index.vectors.T))
    named = times[times >= 3][~table[times >= 3].duplicated()].to_numpy()
    shared = weights / (weights * named).sum(axis=1, keepdims=True)
    for query in range(20):
        theirs = [tuple(points[row].tolist()) for row in top.indices[query].tolist()]
        ours = np.stack([index.lat[rows[query]], index.lon[rows[query]]], axis=1).astype(np.float32)
        assert list(dict.fromkeys(theirs))[:5] == [tuple(place) for place in ours.tolist()]
        assert len(set(theirs[:5])) < 5
        assert top.values[query, 0].item() == pytest.approx(shared[query, rows[query, 0]], rel=2e-3)
        assert similarity[query, 0] == pytest.approx(seen[query].numpy() @ index.vectors[rows[query, 0]], abs=1e-5)
