"""An aligned encoder in the index and in the locator, in every form."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from geoloc.encoders.alignment import WEIGHTS, Alignment
from geoloc.encoders.config import ALIGNMENT, encoder_config, lite, parse_parts
from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.text import HashedWords
from geoloc.errors import UsageError
from geoloc.estimate import finder
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.estimate.retriever import Retriever
from geoloc.index.build import write_index
from geoloc.index.gallery import write_gallery
from geoloc.index.reference import Referencer
from geoloc.index.search import ExactSearcher
from geoloc.index.store import IndexInfo
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.ranking.choosers import Density, Top1, Verification
from geoloc.schema import MANIFEST
from geoloc.storage import Folder
from geoloc.toy.models import write_clip
from tests.pretend_gpu import pretended


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Not trained, which nothing here needs."""
    torch.manual_seed(0)
    folder, alignment = tmp_path_factory.mktemp("alignment"), Alignment(1280, 256)
    save_file(alignment.state_dict(), folder / WEIGHTS)
    card = {"encoder": "lite", "model": lite().model, "image_dimension": 1280, "text_dimension": 256}
    card |= {"similarity_scale": 54.0, "training": {"projection": "mercator"}}
    (folder / ALIGNMENT).write_text(json.dumps(card))
    return encoder_config(str(folder)), alignment.eval()


@pytest.fixture(scope="module")
def batch(toy, tmp_path_factory):
    paths = sorted(str(path) for path in (toy / "references").rglob("*.jpg"))[:20]
    rows = [{"id": i, "uri": path, "city": "Town", "country": "Land"} for i, path in enumerate(paths)]
    view = ImageEncoder(lite()).view
    return pa.concat_tables(PhotoLoader(LoadOptions(DecodeOptions(view))).load(pa.Table.from_pylist(rows, MANIFEST)))


def write(models, batch, folder, multimodal=False):
    referencer = Referencer(models, multimodal=multimodal)
    rows = referencer.refer(batch)
    encoder = ImageEncoder(models)
    info = IndexInfo("photos", encoder.fingerprint, models.name, models.model, rows.num_rows, encoder.dimension)
    write_index(folder, info, [rows])
    return Folder(str(folder)), np.array(rows["vector"].to_pylist(), np.float32), rows


def test_three_parts_of_unit_length(models, batch, tmp_path):
    models, alignment = models
    _, vectors, _ = write(models, batch, tmp_path / "i")
    parts = vectors.reshape(20, 3, 1280)
    assert np.linalg.norm(parts, axis=2) == pytest.approx(1, abs=1e-5)
    pixels = np.stack([np.frombuffer(p, np.uint8).reshape(224, 224, 3) for p in batch["pixels"].to_pylist()])
    raw = ImageEncoder(lite(), features=True).encode(pixels)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)
    with torch.inference_mode():
        text, location = alignment.images(torch.from_numpy(raw))
    assert np.allclose(parts[:, 0], raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    assert np.allclose(parts[:, 1], text, atol=1e-4)
    assert np.allclose(parts[:, 2], location, atol=1e-4)


def test_multimodal_references_are_photo_words_and_place(models, batch, tmp_path):
    models, alignment = models
    _, vectors, rows = write(models, batch, tmp_path / "i", multimodal=True)
    parts = vectors.reshape(20, 3, 1280)
    lat, lon = rows["lat"].to_numpy(), rows["lon"].to_numpy()
    assert np.allclose(parts[:, 2], alignment.encode_locations(lat, lon), atol=1e-5)
    region = rows["place"].to_pylist()[0]["region"]
    names = ", ".join(filter(None, ["Town", region, "Land"]))
    words = alignment.encode_texts(HashedWords().encode([f"A street view photo taken in {names}"]))
    assert np.allclose(parts[0, 1], words[0], atol=1e-5)


def test_photos_find_themselves_by_any_part_and_least_what_is_least_like_them(models, batch, tmp_path):
    models, _ = models
    folder, vectors, _ = write(models, batch, tmp_path / "i")
    retriever = Retriever(ImageEncoder(models), [folder])
    queries, rows = retriever.encode(batch)
    for parts in (("image",), ("location",), ("image", "text"), ("image", "text", "location")):
        found = retriever.search(queries, 5, parts)
        assert found.row[:, 0].tolist() == rows.tolist()
        assert found.similarity[:, 0] == pytest.approx(len(parts), abs=1e-4)
    least = retriever.dissimilar(queries, 3)
    products = queries @ vectors.T
    assert least.row[:, 0].tolist() == products.argmin(axis=1).tolist()
    assert least.similarity[:, 0] == pytest.approx(products.min(axis=1), abs=1e-4)
    assert (np.diff(least.similarity, axis=1) >= 0).all()


def test_verification_is_in_the_learned_location_space(models, batch, tmp_path):
    models, alignment = models
    folder, _, _ = write(models, batch, tmp_path / "i")
    rows = Locator.load(LocatorOptions(models, (folder,), 10, Verification())).locate(batch).to_pylist()
    vectors, _ = Retriever(ImageEncoder(models), [folder]).encode(batch)
    for row, vector in zip(rows, vectors, strict=True):
        lat, lon = (np.array([candidate[name] for candidate in row["candidates"]]) for name in ("lat", "lon"))
        scores = alignment.encode_locations(lat, lon) @ vector[-1280:]
        assert [candidate["score"] for candidate in row["candidates"]] == pytest.approx(scores, abs=1e-4)
        assert (row["method"], scores.argmax()) == ("verification", 0)


def test_a_gallery_of_its_own_locations(models, batch, tmp_path, monkeypatch):
    models, alignment = models
    lat, lon = np.array([10.0, -20.0, 48.0, 0.0, 60.0]), np.array([20.0, 30.0, 2.0, 179.0, -120.0])
    monkeypatch.setattr("geoloc.index.gallery.geoclip_gallery", lambda: (lat, lon))
    info = write_gallery(tmp_path / "gallery", models)
    assert (info.kind, info.rows, info.dimension, info.weights) == (
        "gallery",
        5,
        1280,
        ImageEncoder(models).fingerprint,
    )
    retriever = Retriever(ImageEncoder(models), [Folder(str(tmp_path / "gallery"))])
    vectors, _ = retriever.encode(batch)
    expected = vectors[:, -1280:] @ alignment.encode_locations(lat, lon).T
    assert retriever.search(vectors, 5).similarity[:, 0] == pytest.approx(expected.max(axis=1), abs=1e-4)


def test_an_alignment_of_another_image_model(models, tmp_path):
    models, _ = models
    with pytest.raises(
        UsageError, match=r"was trained on image features of width 1280, and those of local-dir:.* have 32"
    ):
        ImageEncoder(encoder_config(models.alignment.uri, write_clip(tmp_path / "clip", dimension=32)))


def test_parts_that_there_are_not(models):
    models, _ = models
    assert parse_parts("location+image", models) == ("image", "location")
    with pytest.raises(UsageError, match="--parts image\\+gps: there is image, text, location"):
        parse_parts("image+gps", models)
    with pytest.raises(UsageError, match="encoder lite has one part only"):
        parse_parts("image", lite())


@pytest.mark.parametrize("chooser", [Top1(), Density(), Verification()])
def test_an_archives_answers_on_a_gpu_are_the_cpus(models, batch, tmp_path, chooser, monkeypatch):
    """On a pretended one, in bfloat16."""
    folder, _, _ = write(models[0], batch, tmp_path)
    options = LocatorOptions(models[0], (folder,), chooser=chooser, candidates=5)
    expected = Locator.load(options).locate(batch)
    monkeypatch.setattr(finder, "GpuSearcher", lambda vectors, devices: ExactSearcher(vectors))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pretended() as log:
        locator = Locator.load(options, "cuda")
        log.clear()
        found = locator.locate(batch)
        assert log.waiting_copies() == []
        assert len(log.waits) <= 2  # the vectors, and the candidates' cosines
    assert found["status"].to_pylist() == expected["status"].to_pylist()
    for name in ("estimate_lat", "estimate_lon"):
        assert (np.isclose(found[name].to_numpy(), expected[name].to_numpy(), atol=1e-6)).mean() > 0.8
