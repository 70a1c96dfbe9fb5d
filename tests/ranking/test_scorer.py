"""The scorer against each pair by itself, through the processor of transformers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from geoloc.errors import PhotoError, UsageError
from geoloc.photos.views import AreaView, Picture
from geoloc.ranking.georanker import (
    GeoRankerModel,
    check_ranker,
    load_base,
    save_adapter,
    with_adapter,
    with_new_adapter,
)
from geoloc.ranking.options import PromptOptions, RankerOptions
from geoloc.ranking.pictures import Patcher
from geoloc.ranking.prompt import PromptPlace, messages
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.storage import Folder
from geoloc.toy.models import write_qwen2_vl, write_qwen25_vl
from tests.conftest import opinionated

NEGATIVES = [PromptPlace(1.5, 2.5, "Elsewhere"), PromptPlace(-3.25, 170.0, "")]
VIEW = AreaView(28, 4 * 28 * 28, 9 * 28 * 28)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(write_qwen2_vl(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory) -> Folder:
    path = tmp_path_factory.mktemp("adapter")
    save_adapter(opinionated(folder), path)
    return Folder(str(path))


def picture(random: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def queries(random) -> list[RankQuery]:
    """Ragged: of 5, 1 and 3 candidates, some without words, some without image."""
    images = {key: png(picture(random, *size)) for key, size in enumerate([(90, 60), (60, 200), (64, 64), (30, 20)])}
    places = [PromptPlace(48.8566, 2.3522, "Paris France"), PromptPlace(40.75, -74.0), PromptPlace(0.1, 7.0, "Gulf")]
    shown = [
        [(0, 0), (1, None), (2, 1), (0, None), (1, 2)],
        [(1, None)],
        [(2, 3), (0, 0), (1, 1)],
    ]
    return [
        RankQuery(
            VIEW.of(Picture.of(picture(random, 120 - 20 * number, 80))),
            [
                RankCandidate(places[place], None if image is None else images[image], image)
                for place, image in candidates
            ],
            NEGATIVES,
        )
        for number, candidates in enumerate(shown)
    ]


def options(folder, adapter=None, **prompt) -> RankerOptions:
    return RankerOptions(
        folder, adapter, PromptOptions(min_pixels=VIEW.min_pixels, max_pixels=VIEW.max_pixels, **prompt)
    )


def one_by_one(ranker: GeoRankerModel, folder: str, query: RankQuery, template: str) -> list[float]:
    processor = AutoProcessor.from_pretrained(folder)
    scores = []
    for candidate in query.candidates:
        asked = messages(template, candidate.place, query.negatives, candidate.image is not None)
        images = [Image.fromarray(query.picture)]
        if candidate.image is not None:
            images.append(Image.fromarray(VIEW.of(Picture.of(Image.open(io.BytesIO(candidate.image)).convert("RGB")))))
        text = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[text], images=[images], do_resize=False, return_tensors="pt")
        with torch.inference_mode():
            scores.append(ranker.pairs(**inputs).item())
    return scores


@pytest.mark.parametrize("template", ["georanker", "shared_prefix"])
@pytest.mark.parametrize("max_tokens", [1, 700, 100_000])
def test_scores_are_those_of_each_pair_alone(folder, adapter, queries, template, max_tokens):
    """However many fit into a pass, also when reference features come from the cache."""
    ranker = GeoRankerScorer.load(options(folder, adapter, template=template), max_tokens=max_tokens)
    plain = with_adapter(load_base(folder), adapter).eval()
    for _ in range(2):
        for query, scores in zip(queries, ranker.rank(queries), strict=True):
            assert scores.tolist() == pytest.approx(one_by_one(plain, folder, query, template), abs=1e-4)


def test_in_bfloat16_the_order_is_that_of_each_pair_alone(folder, adapter, random):
    """Wherever scores differ by more than 0.05."""
    image = png(picture(random, 80, 60))
    places = [PromptPlace(*random.uniform(-80, 80, 2).tolist(), "Somewhere") for _ in range(24)]
    query = RankQuery(
        VIEW.of(Picture.of(picture(random, 90, 60))), [RankCandidate(place, image, 0) for place in places], NEGATIVES
    )
    model = load_base(folder, torch.bfloat16)
    with_adapter(model, adapter)
    prompt = options(folder).prompt
    [packed] = GeoRankerScorer(model.eval(), folder, prompt).rank([query])
    alone = np.array(one_by_one(model, folder, query, prompt.template))
    gaps, ours = np.subtract.outer(alone, alone), np.subtract.outer(packed, packed)
    clear = np.abs(gaps) > 0.05
    assert clear.sum() >= 20
    assert (gaps[clear] * ours[clear] > 0).mean() >= 0.99


def test_so_are_those_of_a_newer_model(queries, tmp_path):
    folder = str(write_qwen25_vl(tmp_path / "qwen25"))
    save_adapter(with_new_adapter(load_base(folder)), tmp_path / "adapter")
    adapter = Folder(str(tmp_path / "adapter"))
    plain = with_adapter(load_base(folder), adapter).eval()
    for query, scores in zip(queries, GeoRankerScorer.load(options(folder, adapter)).rank(queries), strict=True):
        assert scores.tolist() == pytest.approx(one_by_one(plain, folder, query, "shared_prefix"), abs=1e-4)


def test_a_picture_is_encoded_once_as_long_as_it_is_kept(folder, adapter, queries, monkeypatch):
    encoded = []
    encode = GeoRankerModel.encode_images
    monkeypatch.setattr(
        GeoRankerModel, "encode_images", lambda self, p, grids: encoded.append(len(grids)) or encode(self, p, grids)
    )
    expected = GeoRankerScorer.load(options(folder, adapter)).rank(queries)
    assert encoded == [3 + 4]
    ranker = GeoRankerScorer.load(options(folder, adapter))
    for query, scores in zip(queries, expected, strict=True):
        assert ranker.rank([query])[0].tolist() == pytest.approx(scores.tolist(), abs=1e-5)
    assert encoded[1:] == [1 + 3, 1, 1 + 1]
    small = GeoRankerScorer.load(RankerOptions(folder, adapter, options(folder, adapter).prompt, cache_gb=1e-9))
    for query, scores in zip(queries, expected, strict=True):
        assert small.rank([query])[0].tolist() == pytest.approx(scores.tolist(), abs=1e-5)
    assert encoded[4:] == [1 + 3, 1, 1 + 3]


def test_out_of_memory_halves_and_goes_on(folder, adapter, queries, monkeypatch):
    expected = GeoRankerScorer.load(options(folder, adapter)).rank(queries)
    sizes, forward = [], GeoRankerModel.forward

    def small(self, pack):
        sizes.append(len(pack.last))
        if len(pack.last) > 1:
            raise torch.OutOfMemoryError("no room")
        return forward(self, pack)

    monkeypatch.setattr(GeoRankerModel, "forward", small)
    found = GeoRankerScorer.load(options(folder, adapter)).rank(queries)
    for scores, wanted in zip(found, expected, strict=True):
        assert scores.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    assert max(sizes) == 9

    def none(self, pack):
        raise torch.OutOfMemoryError("no room at all")

    monkeypatch.setattr(GeoRankerModel, "forward", none)
    with pytest.raises(UsageError, match=r"--max-pixels 7056: one candidate is too big .*no room at all"):
        GeoRankerScorer.load(options(folder, adapter)).rank(queries)


def test_the_published_resolution_refuses_only_what_does_not_fit(tmp_path, random):
    """12,845,056 pixels are 16,384 tokens, and two of them more than Qwen2-VL's 32,768; here a model of 512."""
    folder = str(write_qwen2_vl(tmp_path, text={"max_position_embeddings": 512}))
    published = RankerOptions(folder, None, PromptOptions("georanker", max_pixels=12_845_056))
    view = check_ranker(published).view
    ranker = GeoRankerScorer.load(published)
    place = RankCandidate(PromptPlace(1.0, 2.0, "Somewhere"), png(picture(random, 84, 56)))
    sizes = [(280, 280), (20 * 28, 20 * 28), (5 * 28, 15 * 28)]
    shown = [view.of(Picture.of(picture(random, *size))) for size in sizes]
    assert [pixels.shape[:2] for pixels in shown] == [size[::-1] for size in sizes]
    small, large, wide = ranker.rank([RankQuery(pixels, [place]) for pixels in shown])
    assert small.shape == wide.shape == (1,)
    assert large.kind == "too_long"


def test_what_is_wrong_with_one_photo_is_not_wrong_with_others(folder, adapter, queries, random, monkeypatch):
    nobody = RankQuery(queries[0].picture, [], NEGATIVES)
    talkative = PromptPlace(1.0, 2.0, "very " * 3000)
    too_long = RankQuery(queries[0].picture, [RankCandidate(talkative)], NEGATIVES)
    ranker = GeoRankerScorer.load(options(folder, adapter))
    first, none, long, last = ranker.rank([queries[0], nobody, too_long, queries[2]])
    assert (none.kind, long.kind) == ("no_candidates", "too_long")
    assert "8192" in long.message
    expected = ranker.rank(queries)
    assert first.tolist() == pytest.approx(expected[0].tolist(), abs=1e-5)
    assert last.tolist() == pytest.approx(expected[2].tolist(), abs=1e-5)
    monkeypatch.setattr(GeoRankerModel, "forward", lambda self, pack: torch.full((len(pack.last),), torch.nan))
    [answer] = ranker.rank(queries[:1])
    assert isinstance(answer, PhotoError)
    assert answer.kind == "not_a_number"


def test_a_candidate_whose_picture_cannot_be_read_has_none(folder, adapter, queries):
    broken = [RankCandidate(c.place, b"no picture" if c.image else None) for c in queries[0].candidates]
    bare = [RankCandidate(c.place) for c in queries[0].candidates]
    ranker = GeoRankerScorer.load(options(folder, adapter))
    found, expected = ranker.rank([RankQuery(queries[0].picture, c, NEGATIVES) for c in (broken, bare)])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("left_out", ["words", "pictures", "negatives"])
def test_ablations_leave_it_out(folder, adapter, queries, left_out):
    def without(query: RankQuery) -> RankQuery:
        candidates = [
            RankCandidate(
                PromptPlace(c.place.lat, c.place.lon, None if left_out == "words" else c.place.text),
                None if left_out == "pictures" else c.image,
            )
            for c in query.candidates
        ]
        return RankQuery(query.picture, candidates, [] if left_out == "negatives" else _told(query.negatives))

    def _told(negatives):
        return [PromptPlace(n.lat, n.lon) for n in negatives] if left_out == "words" else negatives

    off = {left_out: 0 if left_out == "negatives" else False}
    found = GeoRankerScorer.load(options(folder, adapter, **off)).rank(queries)
    expected = GeoRankerScorer.load(options(folder, adapter)).rank([without(query) for query in queries])
    for scores, wanted in zip(found, expected, strict=True):
        assert scores.tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_patches_are_the_processors(folder, random):
    processor = AutoProcessor.from_pretrained(folder).image_processor
    patcher = Patcher.of(processor)
    for size in ((500, 375), (1024, 768), (30, 20), (60, 200)):
        image = patcher.view(3136, 50176).of(Picture.of(picture(random, *size)))
        expected = processor([Image.fromarray(image)], do_resize=False, return_tensors="pt")
        assert torch.allclose(patcher.normalised([patcher.cut(image)], "cpu"), expected["pixel_values"], atol=1e-6)
        assert expected["image_grid_thw"].tolist() == [[1, *patcher.grid(image)]]


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(375, 500, (364, 504)), (768, 1024, (756, 1036)), (20, 30, (56, 84))]
)
def test_sizes_of_the_worked_examples(height, width, expected):
    """methods.md 8."""
    assert AreaView(28, 3136, 12_845_056).size(width, height) == expected[::-1]


def test_a_ribbon_is_no_picture():
    with pytest.raises(PhotoError, match="over 200 times"):
        AreaView(28, 3136, 200_704).size(2010, 10)
