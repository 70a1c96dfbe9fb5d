import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.candidates.generated import Generated, merge
from geoloc.candidates.options import EngineOptions, Gate, Generation, Prices, Sampling
from geoloc.candidates.replies import Answer
from geoloc.encoders.config import lite
from geoloc.errors import UsageError
from geoloc.geo.distance import haversine_km
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.choosers import Density, Top1
from geoloc.ranking.choosers import Generated as GeneratedChooser


def retrieved(lat: float, lon: float, similarity: float, row: int) -> dict:
    kept = {"score": similarity, "similarity": similarity, "reference_id": row, "reference": "r.jpg", "place": "x"}
    return {"lat": lat, "lon": lon, "source": "retrieved", "rank": row, "prompts": None, "reason": None} | kept


def said(lat: float, lon: float, prompt: str = "zero-shot", reason: str | None = None) -> Generated:
    return Generated(Answer(lat, lon), prompt, reason)


def test_the_same_place_is_one_candidate():
    there = [retrieved(48.8566, 2.3522, 0.9, 0), retrieved(48.8567, 2.3522, 0.8, 1)]
    found = merge(
        there, [said(48.8567, 2.3523), said(45.75, 4.85, reason="trams"), said(45.7501, 4.85, "references-5")], 0.1
    )
    assert [c["source"] for c in found] == ["retrieved", "retrieved", "generated"]  # retrieved ones stay apart
    assert [c["prompts"] for c in found] == [None, ["zero-shot"], ["zero-shot", "references-5"]]
    assert [c["rank"] for c in found] == [0, 1, 0]
    assert found[2]["reason"] == "trams"
    assert found[2]["similarity"] is found[2]["reference_id"] is None
    assert found[2]["place"].endswith("France")
    assert there[1]["prompts"] is None  # nothing was changed in place


@given(st.lists(st.tuples(st.floats(-89, 89), st.floats(-179, 179)), max_size=12), st.floats(0, 2000))
def test_generated_candidates_are_farther_apart_than_that(points, within_km):
    found = merge([], [said(*point) for point in points], within_km)
    for one, other in itertools.combinations(found, 2):
        assert haversine_km(one["lat"], one["lon"], other["lat"], other["lon"]) > within_km
    assert sum(len(c["prompts"]) for c in found) == len(points)
    assert [c["rank"] for c in found] == list(range(len(found)))


def scored(chooser, *photos: list[dict]) -> np.ndarray:
    found = Candidates.of(photos)
    return chooser.load(lite())(np.zeros((len(photos), 4), np.float32), found)


def test_choosers_with_generated_candidates():
    there = [retrieved(48.85, 2.35, 0.9, 0), retrieved(-33.85, 151.2, 0.89, 1)]
    photo = merge(there, [said(45.75, 4.85), said(52.5, 13.4), said(52.5, 13.4), said(48.9, 2.3)], 0.1)
    top1, generated, density = (scored(chooser, photo)[0] for chooser in (Top1(), GeneratedChooser(), Density(300.0)))
    assert top1.argmax() == 0
    assert np.isneginf(top1[2:]).all()  # it knows no similarity of them
    assert (photo[generated.argmax()]["lat"], photo[generated.argmax()]["lon"]) == (52.5, 13.4)  # two votes
    assert generated[2] == pytest.approx(np.log(1 / 4))
    assert density.argmax() in (0, 4)  # Paris has a neighbour that was said, and votes


def test_nothing_that_was_retrieved_outweighs_what_was_said():
    photo = merge([retrieved(48.85, 2.35, 0.99, 0)], [said(n, n) for n in range(1, 20)], 0.1)
    assert scored(GeneratedChooser(), photo)[0].argmax() == 1  # the first of equals
    assert scored(GeneratedChooser(), photo)[0][0] > np.log(1 / 19) - 0.01


def test_a_photo_of_which_nothing_was_said_has_the_most_similar_reference():
    nothing = merge([retrieved(1, 2, 0.5, 0), retrieved(3, 4, 0.4, 1)], [], 0.1)
    something = merge([retrieved(1, 2, 0.5, 0)], [said(7, 8)], 0.1)
    assert scored(GeneratedChooser(), nothing, something).argmax(axis=1).tolist() == [0, 1]


def test_a_share_is_a_share_and_grows():
    draws = {share: {n for n in range(4000) if Gate(share=share).draws(n)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert len(draws[0.0]) == 0
    assert len(draws[1.0]) == 4000
    assert 300 < len(draws[0.1]) < 500
    assert draws[0.1] < draws[0.5]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"prompts": ()}, "--prompts: names none"),
        ({"prompts": ("zero-shot", "zero-shot")}, "--prompts zero-shot zero-shot: names one twice"),
        ({"prompts": ("zero",)}, "--prompts zero: there is zero-shot"),
        ({"candidates": 0}, "--generated-candidates 0"),
        ({"merge_within_km": -1.0}, "--merge-candidates-within-km -1"),
        ({"budget": 5.0}, "--generation-budget 5: needs --generator-prices"),
        ({"budget": -5.0, "prices": Prices(1, 1)}, "--generation-budget -5"),
        ({"prices": Prices(-1, 1)}, "--generator-prices"),
        ({"engine": EngineOptions(model="m")}, "--generator-endpoint: --generator endpoint needs it"),
        ({"engine": EngineOptions(endpoint="http://x/v1")}, "--generator-model: --generator endpoint needs it"),
        ({"engine": EngineOptions("transformers")}, "--generator-model: --generator transformers needs it"),
        ({"engine": EngineOptions("published")}, "--generator-replies: --generator published needs it"),
        ({"engine": EngineOptions(model="m", endpoint="file:///etc/passwd")}, "is no http:// or https:// address"),
        ({"engine": EngineOptions(model="m", endpoint="ftp://x")}, "is no http:// or https:// address"),
        ({"engine": EngineOptions(model="m", endpoint="http://x/v1", concurrency=0)}, "--generator-concurrency 0"),
        ({"sampling": Sampling(temperature=3)}, "--generator-temperature 3"),
        ({"sampling": Sampling(top_p=0)}, "--generator-top-p 0"),
        ({"sampling": Sampling(max_tokens=0)}, "--generator-max-tokens 0"),
        ({"gate": Gate(share=2)}, "--generate-share 2"),
        ({"gate": Gate(beyond_km=-1)}, "--generate-beyond-km -1"),
        ({"gate": Gate(below_confidence=0)}, "--generate-below-confidence 0"),
        ({"gate": Gate(calibration="x")}, "--generate-calibration x: is for --generate-below-confidence"),
    ],
)
def test_bad_options(changed, expected):
    with pytest.raises(UsageError, match=expected):
        Generation(**{"engine": EngineOptions(model="m", endpoint="http://x/v1")} | changed).check()


def test_a_key_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="must not hold a key; put it into the environment") as raised:
        EngineOptions(model="m", endpoint="https://me:secret@host/v1").check()
    assert "secret" not in str(raised.value)


def test_keys_go_where_they_are_meant_for(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "openai")
    monkeypatch.delenv("GEOLOC_GENERATOR_KEY", raising=False)
    assert EngineOptions(endpoint="https://api.openai.com/v1").key().get_secret_value() == "openai"
    assert EngineOptions(endpoint="https://api.openai.com.evil.example/v1").key() is None
    monkeypatch.setenv("GEOLOC_GENERATOR_KEY", "own")
    assert EngineOptions(endpoint="https://host/v1").key().get_secret_value() == "own"
    assert "own" not in repr(EngineOptions(endpoint="https://host/v1").key())
