"""Whoever answers prompts about photos, and what an answer costs."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from pydantic import SecretStr

from geoloc.candidates.options import Generation
from geoloc.candidates.prompts import prompt
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import S3Options


@dataclass(frozen=True)
class Request:
    photo: str
    """Its uri, for those who know its answers by it."""
    prompt: str
    """Its name."""
    text: str
    image: bytes
    """JPEG."""
    samples: int
    """Replies that are wanted."""


@dataclass(frozen=True)
class Completion:
    replies: tuple[str, ...]
    """As many as were asked for, or fewer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    """Those that it took, tried again ones with them."""
    paid: bool = True
    """By this run, now or before it was cut off; not where the reply was there."""


class Engine(Protocol):
    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """The answers as they come, each with the number of its request. May be called by several threads.

        Raises UsageError where it makes no sense to ask on.
        """
        ...


def check_engine(generation: Generation, s3: S3Options, key: SecretStr | None = None) -> None:
    """Raises UsageError where no photo will be answered about: an endpoint is asked about a grey picture, a model's folder is looked
    at, but not loaded."""
    options = generation.engine
    if options.kind == "endpoint":
        from geoloc.candidates.endpoint import Endpoint

        grey = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(grey, "JPEG")
        asked = Request("", "zero-shot", prompt("zero-shot").write(), grey.getvalue(), 1)
        for _, answer in Endpoint(options, generation.sampling, key, retries=2).complete([asked]):
            if isinstance(answer, PhotoError):
                raise UsageError(
                    f"--generator-endpoint {options.endpoint}: does not answer about a picture ({answer.message}); does "
                    f"{options.model} take pictures, and does it speak OpenAI's chat completions?"
                )
    elif options.kind == "published":
        known = load_engine(generation, s3).prompts
        if unknown := [name for name in generation.prompts if name not in known]:
            raise UsageError(
                f"--prompts {unknown[0]}: the table of --generator-replies has candidates of {', '.join(known)} alone"
            )
    elif options.kind == "transformers":
        from geoloc.candidates.huggingface import load_processor

        load_processor(options.model)
    else:
        from geoloc.candidates.vllm_engine import load_vllm

        load_vllm()


def load_engine(
    generation: Generation, s3: S3Options, device: str = "cpu", threads: int = 1, key: SecretStr | None = None
) -> Engine:
    """Raises UsageError where there is no such model. What each builds on takes seconds to import."""
    options = generation.engine
    if options.kind == "published":
        from geoloc.candidates.published import Published

        return Published.read(options.replies, s3)
    if options.kind == "endpoint":
        from geoloc.candidates.endpoint import Endpoint

        return Endpoint(options, generation.sampling, key)
    if options.kind == "vllm":
        from geoloc.candidates.vllm_engine import Vllm

        return Vllm.load(options, generation.sampling)
    from geoloc.candidates.huggingface import Transformers

    return Transformers.load(options, generation.sampling, device, threads)
