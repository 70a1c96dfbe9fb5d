"""The prompts, byte for byte (methods.md 1.1, 1.2)."""

import pytest

from geoloc.ranking.prompt import CANDIDATE, QUERY, TEMPLATES, PromptPlace, images, messages, place_words
from geoloc.toy.models import write_qwen2_vl

PARIS = PromptPlace(48.8566, 2.3522, "Paris Ile-de-France France")
GENERATED = PromptPlace(48.8566, 2.3522)
NEGATIVES = [PromptPlace(-33.8688, 151.2093, "Sydney Australia"), PromptPlace(0.5, -0.25, "")]
TOLD = "latitude: -33.8688, longitude: 151.2093, Sydney Australia; latitude: 0.5, longitude: -0.25, "
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
IMAGE, END = "<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def render(tmp_path_factory):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(write_qwen2_vl(tmp_path_factory.mktemp("qwen")))
    return lambda message: processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("name", "candidate", "expected"),
    [
        (
            "georanker",
            PARIS,
            f"{IMAGE}How far is this place from latitude: 48.8566, longitude: 2.3522, Paris Ile-de-France France?"
            f"{IMAGE}Negative examples: {TOLD}",
        ),
        (
            "georanker",
            GENERATED,
            f"{IMAGE}How far is this place from latitude: 48.8566, longitude: 2.3522?Negative examples: {TOLD}",
        ),
        (
            "shared_prefix",
            PARIS,
            f"Negative examples: {TOLD}{IMAGE}"
            f"How far is this place from latitude: 48.8566, longitude: 2.3522, Paris Ile-de-France France?{IMAGE}",
        ),
        (
            "shared_prefix",
            GENERATED,
            f"Negative examples: {TOLD}{IMAGE}How far is this place from latitude: 48.8566, longitude: 2.3522?",
        ),
    ],
)
def test_exact_bytes(render, name, candidate, expected):
    message = messages(TEMPLATES[name], candidate, NEGATIVES)
    assert render(message) == SYSTEM + expected + END
    assert images(TEMPLATES[name], candidate) == ([QUERY, CANDIDATE] if candidate.text else [QUERY])


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_common_part_is_common(name):
    """Whatever the candidate, and it ends with an image."""
    template = TEMPLATES[name]
    other = PromptPlace(1.0, 2.0, "Elsewhere")
    first, second, third = (messages(template, place, NEGATIVES)[0]["content"] for place in (PARIS, other, GENERATED))
    assert first[: template.common] == second[: template.common] == third[: template.common]
    assert first[template.common] != second[template.common]
    assert first[template.common - 1] == {"type": "image"}


def test_words_of_a_place():
    assert place_words("Lyon", None, "France") == "Lyon France"
    assert place_words("", "", None) == ""
    dangling = messages(TEMPLATES["georanker"], PromptPlace(1.5, 2.0, ""), [])[0]["content"]
    assert dangling[1]["text"] == "How far is this place from latitude: 1.5, longitude: 2.0, ?"
    assert dangling[3]["text"] == "Negative examples: "
