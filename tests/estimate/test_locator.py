"""The object that batch, endpoint and tests share, without a cluster."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from geoloc.encoders.config import lite
from geoloc.encoders.image import ImageEncoder
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import features, fit
from geoloc.estimate.comparison import Comparison
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import ComparisonOptions, LocatorOptions
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.photos.views import View
from geoloc.schema import MANIFEST
from geoloc.storage import Folder


@pytest.fixture(scope="module")
def options(toy_index) -> LocatorOptions:
    return LocatorOptions(lite(), (Folder(str(toy_index)),), candidates=10)


def load(toy, folder, view: View) -> pa.Table:
    paths = sorted(str(path) for path in (toy / "archive").rglob("*") if path.is_file())
    photos = pa.Table.from_pylist([{"id": i, "uri": path} for i, path in enumerate(paths)], MANIFEST)
    return pa.concat_tables(PhotoLoader(LoadOptions(DecodeOptions(view))).load(photos))


def test_results_brought_up_to_date_are_as_located(options, toy, tmp_path, random):
    """A calibration applied to results later says what it says when photos are located with it."""
    plain = Locator.load(options)
    batch = load(toy, tmp_path, plain.retriever.view)
    photos = [random.uniform(size=(150, 10)) for _ in range(4)]
    calibration = fit(features(*photos, 40.0), random.exponential(100, 150), {})
    abstention = Abstention(200, 0.6)
    confidence = Confidence(lite().similarity_scale, calibration, abstention)
    located = Locator.load(dataclasses.replace(options, confidence=confidence)).locate(batch)
    renewed = confidence.renew(plain.locate(batch))
    for name in located.column_names:
        if name.startswith(("confidence", "radius")):
            ours, expected = (table[name].to_numpy() for table in (renewed, located))
            assert ours == pytest.approx(expected, rel=1e-5, nan_ok=True)
        elif not name.endswith("_s"):
            assert renewed[name].to_pylist() == located[name].to_pylist()
    assert {"located", "uncertain", "failed"} >= set(located["status"].to_pylist())


def test_ten_crops_are_averaged_as_similarities(options, toy, toy_index, tmp_path):
    """Mean over ten crops of the inner products, by hand."""
    locator = LocatorOptions(lite(), (Folder(str(toy_index)),), candidates=60)
    comparison = Comparison(ComparisonOptions((locator,), ten_crop=True))
    encoder = ImageEncoder(lite())
    batch = load(toy, tmp_path, dataclasses.replace(encoder.view, ten_crop=True)).slice(0, 12)
    rows = comparison.compare(batch).to_pylist()
    vectors = np.load(toy_index / "vectors.npy")
    checked = 0
    for row, pixels in zip(rows, batch["pixels"].to_pylist(), strict=True):
        if row["status"] == "compared":
            crops = np.frombuffer(pixels, np.uint8).reshape(5, 224, 224, 3)
            ten = encoder.encode(np.concatenate([crops, crops[:, :, ::-1]]))
            similarity = (vectors @ ten.T).mean(axis=1)
            candidates = row["answer_0"]["candidates"]
            ids = [c["reference_id"] for c in candidates]
            assert [c["similarity"] for c in candidates] == pytest.approx(similarity[ids], abs=1e-5)
            assert similarity[ids[0]] == pytest.approx(similarity.max(), abs=1e-5)
            checked += 1
    assert checked > 5
