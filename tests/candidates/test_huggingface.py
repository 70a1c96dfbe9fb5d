"""A model in this process, against transformers asked by hand."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from geoloc.candidates.engine import Completion, Request, check_engine, load_engine
from geoloc.candidates.huggingface import Transformers
from geoloc.candidates.options import EngineOptions, Generation, Sampling
from geoloc.errors import UsageError
from geoloc.storage import S3Options

TEXTS = ["Where?", "Where was this photo taken, at which latitude and longitude?", "And this one?"]


def request(number: int, samples: int = 1) -> Request:
    pixels = np.random.default_rng(number).integers(0, 255, (56 + 28 * number, 84, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return Request(f"{number}.jpg", "zero-shot", TEXTS[number], buffer.getvalue(), samples)


def engine(base, batch_size: int = 8, **sampling) -> Transformers:
    options = EngineOptions("transformers", model=str(base), batch_size=batch_size)
    return Transformers.load(options, Sampling(**{"max_tokens": 12, "temperature": 0} | sampling))


def by_hand(base, asked: Request) -> tuple[str, int, int]:
    """One at a time, greedily, without padding: the reply, and the tokens of prompt and reply."""
    processor = AutoProcessor.from_pretrained(base)
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
    chat = [{"role": "user", "content": [{"type": "text", "text": asked.text}, {"type": "image"}]}]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(text=[prompt], images=[Image.open(io.BytesIO(asked.image))], return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    text = processor.tokenizer.decode(output, skip_special_tokens=True)
    return text, inputs["input_ids"].shape[1], len(output)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_batch_says_what_each_would_say(toy_base, batch_size):
    asked = [request(number) for number in range(3)]
    answers = dict(engine(toy_base, batch_size).complete(asked))
    for number, one in enumerate(asked):
        text, prompt_tokens, completion_tokens = by_hand(toy_base, one)
        answer = answers[number]
        assert answer.replies == (text,)
        assert answer.prompt_tokens == prompt_tokens
        assert 0 < answer.completion_tokens <= completion_tokens


def test_samples_differ_and_a_seed_repeats_them(toy_base):
    asked = [request(0, samples=4), request(1, samples=2)]
    first, again, other = (dict(engine(toy_base, temperature=1.5, seed=seed).complete(asked)) for seed in (1, 1, 2))
    assert [len(first[number].replies) for number in range(2)] == [4, 2]
    assert len(set(first[0].replies)) > 1
    assert first == again != other


def test_it_is_an_engine_of_a_recipe(toy_base):
    generation = Generation(engine=EngineOptions("transformers", model=str(toy_base)), sampling=Sampling(max_tokens=4))
    generation.check()
    check_engine(generation, S3Options())
    [(_, answer)] = load_engine(generation, S3Options()).complete([request(0)])
    assert isinstance(answer, Completion)


@pytest.mark.parametrize("files", [{}, {"config.json": "{}"}, {"config.json": '{"model_type": "bert"}'}])
def test_what_is_no_such_model(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    generation = Generation(engine=EngineOptions("transformers", model=str(tmp_path)))
    with pytest.raises(
        UsageError, match=r"--generator-model .*: (cannot be loaded as|is no) a? ?model of images and text"
    ):
        check_engine(generation, S3Options())
