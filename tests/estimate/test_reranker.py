"""Retrieved answers and what a ranker makes of them, against the ranker by itself."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from geoloc.encoders.config import encoder_config
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.estimate.reranker import Reranker
from geoloc.geo.distance import haversine_km
from geoloc.index.store import Index
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.ranking.georanker import GeoRankerModel
from geoloc.ranking.options import RankerOptions, prompt_of
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.ranking.scorers import RankOptions
from geoloc.schema import MANIFEST, unpacked
from geoloc.storage import Folder

RANKED, NEGATIVES, SCALE = 5, 2, 40.0


@pytest.fixture(scope="module")
def index(toy_index) -> Index:
    return Index(toy_index)


@pytest.fixture(scope="module")
def ranker(toy_base, toy_adapter) -> GeoRankerScorer:
    adapter = Folder(str(toy_adapter))
    return GeoRankerScorer.load(RankerOptions(str(toy_base), adapter, prompt_of(adapter)))


@pytest.fixture(scope="module")
def located(toy, toy_index, ranker, tmp_path_factory) -> pa.Table:
    """The toy archive, retrieved, with its pictures."""
    locator = Locator.load(
        LocatorOptions(encoder_config("lite"), (Folder(str(toy_index)),), RANKED + NEGATIVES, ranked=True)
    )
    loader = PhotoLoader(
        LoadOptions(DecodeOptions(locator.retriever.view, keep_located=True, picture_view=ranker.view))
    )
    files = sorted(str(path) for path in (toy / "archive").rglob("*.*"))[:20]
    photos = pa.Table.from_pylist([{"id": n, "uri": file} for n, file in enumerate(files)], MANIFEST)
    batches = loader.load(photos)
    return pa.concat_tables([locator.locate(batch) for batch in batches])


def reranker(ranker, index, **options) -> Reranker:
    return Reranker("georanker", ranker, index, RankOptions(RANKED, NEGATIVES, **options), Confidence(1.0), SCALE)


def test_candidates_are_ordered_by_the_ranker(located, ranker, index):
    rows = reranker(ranker, index).rerank(located).to_pylist()
    assert {row["method"] for row in rows if row["status"] == "located"} == {"georanker"}
    for before, row in zip(located.to_pylist(), rows, strict=True):
        if row["status"] != "located":
            assert row == {name: before[name] for name in row}
            continue
        places = []
        for candidate in before["candidates"]:
            there = index.place[candidate["reference_id"]].as_py()
            words = " ".join(there[name] for name in ("city", "region", "country") if there[name])
            places.append(PromptPlace(candidate["lat"], candidate["lon"], words))
        keys = [candidate["reference_id"] for candidate in before["candidates"]]
        shown = [RankCandidate(p, index.thumbnail(k), k) for p, k in zip(places, keys, strict=True)][:RANKED]
        [scores] = ranker.rank([RankQuery(unpacked(before["picture"]), shown, places[RANKED:])])
        order = np.argsort(-scores, kind="stable")
        assert [c["reference_id"] for c in row["candidates"]] == [keys[n] for n in order]
        assert [c["score"] for c in row["candidates"]] == pytest.approx(scores[order].tolist(), abs=1e-4)
        assert (row["lat"], row["lon"]) == (row["candidates"][0]["lat"], row["candidates"][0]["lon"])
        weight = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        km = haversine_km(row["lat"], row["lon"], *np.array([(p.lat, p.lon) for p in places[:RANKED]]).T)
        assert row["confidence"] == pytest.approx(weight[km <= 25].sum(), abs=1e-4)
        assert row["rank_s"] > 0


def test_where_candidates_agree_retrieval_answers(located, ranker, index):
    for before, row in zip(located.to_pylist(), _rows(located, ranker, index, skip_within_km=500.0), strict=True):
        if row["status"] != "located":
            continue
        lat, lon = np.array([(c["lat"], c["lon"]) for c in before["candidates"][:5]]).T
        agree = haversine_km(lat[:, None], lon[:, None], lat, lon).max() <= 500
        assert row["method"] == ("top1 (candidates agree)" if agree else "georanker")
        if agree:
            assert (row["lat"], row["lon"], row["rank_s"]) == (before["lat"], before["lon"], 0)
            assert row["confidence"] == pytest.approx(before["confidence"], abs=1e-5)
            assert len(row["candidates"]) == RANKED + NEGATIVES
    everyone = _rows(located, ranker, index, skip_within_km=30_000.0)
    assert {row["method"] for row in everyone if row["status"] == "located"} == {"top1 (candidates agree)"}


def test_a_photo_that_cannot_be_ranked_keeps_its_answer_and_says_why(located, ranker, index, monkeypatch):
    pictures = located["picture"].to_pylist()
    first = located["status"].to_pylist().index("located")
    pictures[first] = None
    at = located.schema.get_field_index("picture")
    blind = located.set_column(at, "picture", pa.array(pictures, located.schema.field("picture").type))
    monkeypatch.setattr(GeoRankerModel, "forward", lambda self, pack: torch.full((len(pack.last),), torch.nan))
    for number, (before, row) in enumerate(zip(located.to_pylist(), _rows(blind, ranker, index), strict=True)):
        if row["status"] == "located":
            assert row["method"] == "top1 (ranking failed)"
            assert row["error_kind"] == ("no_picture" if number == first else "not_a_number")
            assert (row["lat"], row["lon"]) == (before["lat"], before["lon"])


def test_nothing_to_rank(located, ranker, index):
    settled = located.filter(pa.array([status != "located" for status in located["status"].to_pylist()]))
    assert settled.num_rows
    assert reranker(ranker, index).rerank(settled)["status"].to_pylist() == settled["status"].to_pylist()


def _rows(table, ranker, index, **options) -> list[dict]:
    return reranker(ranker, index, **options).rerank(table).to_pylist()
