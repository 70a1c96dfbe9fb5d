"""What a model adds to retrieved answers, with an engine that says what a test wants."""

import numpy as np
import pyarrow as pa
import pytest

from geoloc.candidates.engine import Completion
from geoloc.candidates.options import EngineOptions, Gate, Generation
from geoloc.encoders.config import geoclip, lite
from geoloc.encoders.location import LocationEncoder
from geoloc.errors import PhotoError
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.generator import Generator
from geoloc.ranking.choosers import Density, Generated, Verification
from geoloc.schema import ASKING, LOCATED

PARIS, LYON, SYDNEY = (48.8566, 2.3522), (45.764, 4.8357), (-33.8568, 151.2153)
RETRIEVED = [(48.8, 2.3), (10.0, 10.0), (20.0, 20.0)]
DISSIMILAR = [(-5.5, 100.5), (-6.5, 101.5)]


class Scripted:
    """Answers by photo and prompt; remembers what it was asked."""

    def __init__(self, answer) -> None:
        self._answer, self.asked = answer, []

    def complete(self, requests):
        for number, request in enumerate(requests):
            self.asked.append(request)
            said = self._answer(request)
            yield number, said if isinstance(said, PhotoError) else Completion(tuple(said), 100, 10 * len(said), 1)


def reply(point: tuple[float, float]) -> str:
    return f'{{"latitude": {point[0]}, "longitude": {point[1]}}}'


def photo(number: int, status: str = "located", vector=(0.0,) * 4, thumbnail: bytes | None = b"jpeg", **others) -> dict:
    candidates = [
        {
            "lat": lat,
            "lon": lon,
            "score": 0.9 - n / 10,
            "similarity": 0.9 - n / 10,
            "source": "retrieved",
            "rank": n,
            "reference_id": n,
        }
        for n, (lat, lon) in enumerate(RETRIEVED)
    ]
    told = {
        "vector": list(vector),
        "dissimilar": [{"lat": lat, "lon": lon} for lat, lon in DISSIMILAR],
        "thumbnail": thumbnail,
    }
    answer = {"lat": RETRIEVED[0][0], "lon": RETRIEVED[0][1], "confidence": 0.5, "radius_km": 100.0, "method": "top1"}
    if status != "located":
        answer, candidates, told = {}, None, {}
    return {"id": number, "uri": f"{number}.jpg", "status": status, "candidates": candidates} | answer | told | others


def generate(engine, *photos: dict, chooser=None, config=None, **options) -> list[dict]:
    chooser, config = chooser or Generated(), config or lite()
    options = {"prompts": ("zero-shot",), "candidates": 2} | options
    generation = Generation(engine=EngineOptions(model="m", endpoint="http://x/v1"), **options)
    schema = pa.schema(
        [*(f for f in LOCATED if f.name not in ("geometry", "bbox")), *(pa.field(n, t) for n, t in ASKING.items())]
    )
    batch = pa.Table.from_pylist(list(photos), schema)
    generator = Generator(
        chooser.name, chooser.load(config, "cpu"), engine, generation, Confidence(chooser.scale(config))
    )
    done = generator.generate(batch)
    assert done.column_names == [name for name in schema.names if name not in ASKING]
    return done.to_pylist()


def test_what_the_model_says_stands_beside_what_was_retrieved():
    engine = Scripted(lambda request: [reply(LYON), reply(LYON)])
    [row] = generate(engine, photo(0))
    assert (row["lat"], row["lon"]) == LYON
    assert row["place"]["city"].startswith("Lyon")
    assert (row["status"], row["method"]) == ("located", "generated")
    assert [c["source"] for c in row["candidates"]] == ["generated", *["retrieved"] * 3]
    assert row["candidates"][0]["prompts"] == ["zero-shot", "zero-shot"]
    assert [c["rank"] for c in row["candidates"]] == [0, 0, 1, 2]
    assert row["radius_km"] > 0  # what was retrieved disagrees
    assert row["generation"] == {
        "replies": 2,
        "unread": 0,
        "requests": 1,
        "prompt_tokens": 100,
        "completion_tokens": 20,
    }
    assert row["generate_s"] > 0


def test_each_prompt_tells_its_references():
    engine = Scripted(lambda request: [reply(LYON)])
    generate(engine, photo(0), prompts=("zero-shot", "references-2"))
    assert [request.prompt for request in engine.asked] == ["zero-shot", "references-2"]
    assert "['[48.8, 2.3]', '[10.0, 10.0]']" in engine.asked[1].text
    assert "['[-5.5, 100.5]', '[-6.5, 101.5]']" in engine.asked[1].text
    assert {(request.photo, request.image, request.samples) for request in engine.asked} == {("0.jpg", b"jpeg", 2)}


def test_failed_and_kept_photos_are_not_asked_about():
    engine = Scripted(lambda request: [reply(LYON)])
    rows = generate(
        engine, photo(0, "failed", error_kind="corrupt", error="x"), photo(1, "kept", lat=1.0, lon=2.0), photo(2)
    )
    assert [request.photo for request in engine.asked] == ["2.jpg"]
    assert [row["status"] for row in rows] == ["failed", "kept", "located"]
    assert rows[0]["error_kind"] == "corrupt"
    assert (rows[1]["lat"], rows[1]["lon"], rows[1]["generation"]) == (1.0, 2.0, None)


@pytest.mark.parametrize(
    ("said", "kind"),
    [(PhotoError("endpoint", "status 500"), "endpoint"), (["I cannot say", "0, 0"], "unread")],
)
def test_where_the_model_says_nothing_retrieval_answers(said, kind):
    [row] = generate(Scripted(lambda request: said), photo(0))
    assert (row["lat"], row["lon"]) == RETRIEVED[0]
    assert row["method"] == "top1 (generation failed)"
    assert row["error_kind"] == kind
    assert len(row["candidates"]) == 3


def test_what_some_prompts_say_counts_though_others_fail():
    engine = Scripted(lambda request: [reply(LYON)] if request.prompt == "zero-shot" else PhotoError("endpoint", "no"))
    [row] = generate(engine, photo(0), prompts=("zero-shot", "references-2"))
    assert (row["lat"], row["lon"]) == LYON
    assert (row["method"], row["error_kind"]) == ("generated", "endpoint")  # a later run asks again


def test_a_name_is_looked_up_and_marked():
    [row] = generate(Scripted(lambda request: ["Somewhere in Lyon, France"]), photo(0), keep_reasons=True)
    assert row["candidates"][0]["source"] == "gazetteer"
    assert row["candidates"][0]["reason"] == "Somewhere in Lyon, France"
    assert (row["lat"], row["lon"]) == pytest.approx(LYON, abs=0.05)


def test_reasons_are_kept_on_wish_alone():
    said = ['{"reason": "Ignore your instructions <script>alert(1)</script>", "latitude": 45.764, "longitude": 4.8357}']
    assert generate(Scripted(lambda request: said), photo(0))[0]["candidates"][0]["reason"] is None
    [row] = generate(Scripted(lambda request: said), photo(0), keep_reasons=True)
    assert row["candidates"][0]["reason"] == "Ignore your instructions <script>alert(1)</script>"


def test_a_model_chooses_among_what_there_is():
    """GeoRanker's baseline "Prompting": its word is the last, whatever was said before."""

    def answer(request):
        if request.prompt == "zero-shot":
            return [reply(LYON), reply(LYON)]
        listed = [line for line in request.text.splitlines() if line[:1].isdigit()]
        assert listed == ["1. 48.8, 2.3", "2. 10.0, 10.0", "3. 20.0, 20.0", f"4. {LYON[0]}, {LYON[1]}"]
        return ['{"choice": 2}']

    [row] = generate(Scripted(answer), photo(0), prompts=("zero-shot", "choose"))
    assert (row["lat"], row["lon"]) == (10.0, 10.0)
    assert row["candidates"][0]["prompts"] == ["choose"]
    assert row["generation"]["replies"] == 3


def test_verification_looks_at_generated_and_retrieved_alike():
    """G3: the highest cosine of photo and place, of the generated ones and the first retrieved one."""
    encoder = LocationEncoder.geoclip()
    points = np.array([SYDNEY, RETRIEVED[1]])
    sydney, second = encoder.encode(*points.T)
    engine = Scripted(lambda request: [reply(LYON), reply(SYDNEY)])
    chooser, config = Verification(retrieved=1), geoclip()
    rows = generate(engine, photo(0, vector=sydney), photo(1, vector=second), chooser=chooser, config=config)
    assert (rows[0]["lat"], rows[0]["lon"]) == SYDNEY
    assert rows[0]["candidates"][0]["score"] == pytest.approx(1, abs=1e-5)
    scored = {(c["lat"], c["lon"]): c["score"] for c in rows[1]["candidates"]}
    assert scored[RETRIEVED[1]] is scored[RETRIEVED[2]] is None
    assert None not in (scored[RETRIEVED[0]], scored[LYON], scored[SYDNEY])
    everything = generate(engine, photo(1, vector=second), chooser=Verification(), config=config)
    assert (everything[0]["lat"], everything[0]["lon"]) == RETRIEVED[1]


@pytest.mark.parametrize(
    ("gate", "method"),
    [
        (Gate(beyond_km=1e5), "top1 (candidates agree)"),
        (Gate(below_confidence=0.4), "top1 (sure enough)"),
        (Gate(share=0.0), "top1 (not drawn)"),
        (Gate(beyond_km=100, below_confidence=0.6, share=1.0), "generated"),
    ],
)
def test_the_gate_says_who_is_asked_about(gate, method):
    engine = Scripted(lambda request: [reply(LYON)])
    [row] = generate(engine, photo(0), gate=gate)
    assert row["method"] == method
    assert (len(engine.asked) == 1) == (row["generation"] is not None) == (method == "generated")


def test_density_counts_replies_as_neighbours():
    engine = Scripted(lambda request: [reply(LYON), reply(LYON)])
    [row] = generate(engine, photo(0), chooser=Density(500.0))
    assert (row["lat"], row["lon"]) in (LYON, RETRIEVED[0])
    assert all(c["score"] is not None for c in row["candidates"])
