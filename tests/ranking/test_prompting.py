"""Prompts against the whole chat through the model's own processor and rule of positions."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from geoloc.errors import UsageError
from geoloc.ranking import prompting
from geoloc.ranking.georanker import load_base
from geoloc.ranking.packing import EncodedImage
from geoloc.ranking.prompt import PromptPlace, messages
from geoloc.ranking.prompting import Prompter
from geoloc.toy.models import write_qwen2_vl, write_qwen25_vl

QUERY, GRIDS = (6, 4), [(4, 4), None, (2, 10)]
PLACES = [PromptPlace(48.85, 2.35, "Paris  Île-de-France"), PromptPlace(-1e-05, 180.0), PromptPlace(0.0, 0.0, "")]
NEGATIVES = [PromptPlace(1.5, 2.5, "{{ not }} <|im_end|> \\n @@0@@"), PromptPlace(-3.25, 170.0, "")]


@pytest.fixture(scope="module", params=[write_qwen2_vl, write_qwen25_vl])
def model(request, tmp_path_factory):
    folder = str(request.param(tmp_path_factory.mktemp("model")))
    return load_base(folder).model, AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize(
    "change", ["| upper", "| e", "| truncate(200)", "| replace('latitude', 'lat')", "| replace('  ', ' ')", "| trim"]
)
def test_whatever_a_chat_template_does_to_texts_is_heard(model, change, random):
    base, processor = model
    before = processor.chat_template
    processor.chat_template = before.replace("part['text']", f"part['text'] {change}")
    try:
        prompter = Prompter(processor, base, "shared_prefix")
        for _ in range(8):
            place = PromptPlace(*random.uniform(-80, 80, 2).tolist(), "  ".join(["O'Hara & Sons", "<b>x"] * 9))
            prompts = prompter.prompts(EncodedImage(QUERY), [(place, None)], NEGATIVES)
            [text] = processor.apply_chat_template(
                [messages("shared_prefix", place, NEGATIVES, False)], tokenize=False, add_generation_prompt=True
            )
            behind = text.split("<|vision_end|>")[1]
            assert processor.tokenizer.decode(prompts.suffixes[0].ids) == behind
    finally:
        processor.chat_template = before


@pytest.mark.parametrize("negatives", [NEGATIVES, []])
@pytest.mark.parametrize("template", ["georanker", "shared_prefix"])
def test_they_are_the_processors(model, template, negatives):
    base, processor = model
    prompter = Prompter(processor, base, template)
    candidates = [(place, grid and EncodedImage(grid)) for place, grid in zip(PLACES, GRIDS, strict=True)]
    for _ in range(2):  # from the tokenizer, and from memory
        prompts = prompter.prompts(EncodedImage(QUERY), candidates, negatives)
        for (place, image), suffix in zip(candidates, prompts.suffixes, strict=True):
            asked = messages(template, place, negatives, image is not None)
            [text] = processor.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
            grids = [QUERY, *([image.grid] if image else [])]
            pieces = text.split("<|image_pad|>")
            counts = [rows * columns // 4 for rows, columns in grids]
            for count, piece in zip(counts, pieces[1:], strict=True):
                pieces[0] += "<|image_pad|>" * count + piece
            ids = processor.tokenizer([pieces[0]], add_special_tokens=False, return_tensors="pt")["input_ids"]
            assert np.concatenate([prompts.prefix.ids, suffix.ids]).tolist() == ids[0].tolist()
            thw = torch.tensor([(1, *grid) for grid in grids])
            is_image = (ids == base.config.image_token_id).int()
            positions, _ = base.get_rope_index(ids, is_image, thw, attention_mask=torch.ones_like(ids))
            ours = np.concatenate([prompts.prefix.positions, suffix.positions], axis=1)
            assert np.array_equal(ours, positions[:, 0])
            shown = [np.flatnonzero(part.ids == base.config.image_token_id) for part in (prompts.prefix, suffix)]
            assert shown[0].tolist() == list(range(prompts.prefix.image_at, prompts.prefix.image_at + counts[0]))
            assert not image or shown[1][0] == suffix.image_at


def test_a_chat_template_that_changes_its_texts_is_heard(model):
    base, processor = model
    before = processor.chat_template
    processor.chat_template = before.replace("part.text", "part.text | upper").replace(
        "part['text']", "part['text'] | upper"
    )
    assert processor.chat_template != before
    try:
        prompter = Prompter(processor, base, "shared_prefix")
        prompts = prompter.prompts(EncodedImage(QUERY), [(PromptPlace(1.0, 2.0, "Nice"), None)], [])
        assert "LATITUDE: 1.0, LONGITUDE: 2.0, NICE?" in processor.tokenizer.decode(prompts.suffixes[0].ids)
    finally:
        processor.chat_template = before


def test_of_texts_the_latest_are_remembered(model, monkeypatch):
    monkeypatch.setattr(prompting, "KEPT", 3)
    prompter = Prompter(model[1], model[0], "shared_prefix")
    for number in range(5):
        prompter.prompts(EncodedImage(QUERY), [(PromptPlace(1.0, float(number)), None)], [])
        assert len(prompter._tokens) <= 3


def test_a_model_that_counts_otherwise_is_refused(model, monkeypatch):
    base, processor = model
    rule = type(base).get_rope_index
    monkeypatch.setattr(
        type(base), "get_rope_index", lambda self, *of, **named: (rule(self, *of, **named)[0] + 1, None)
    )
    with pytest.raises(UsageError, match=r"--ranker-model .*: counts the positions of tokens otherwise"):
        Prompter(processor, base, "georanker")
