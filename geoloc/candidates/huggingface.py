"""Replies of a vision-language model in this process: any image-text-to-text model that transformers loads."""

import io
import threading
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.options import EngineOptions, Sampling
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import describe


def load_processor(model: str) -> ProcessorMixin:
    """Raises UsageError where there is none of images and text."""
    try:
        processor = AutoProcessor.from_pretrained(model)
    except Exception as error:
        raise _unloadable(model, error) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise UsageError(f"--generator-model {model}: is no model of images and text")
    return processor


def _unloadable(model: str, error: Exception) -> UsageError:
    """The hub, the file system and the model's own code each fail in their own way."""
    return UsageError(f"--generator-model {model}: cannot be loaded as a model of images and text ({describe(error)})")


class Transformers:
    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, sampling: Sampling, batch_size: int = 8
    ) -> None:
        self._model, self._processor, self._sampling, self._batch_size = model, processor, sampling, batch_size
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # replies begin where prompts end
        self._pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(cls, options: EngineOptions, sampling: Sampling, device: str = "cpu", threads: int = 1) -> "Transformers":
        """bfloat16 on a GPU, float32 elsewhere. Raises UsageError where there is no such model."""
        torch.set_num_threads(threads)
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        processor = load_processor(options.model)
        try:
            model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=dtype, use_safetensors=True)
        except Exception as error:
            raise _unloadable(options.model, error) from error
        return cls(model.eval().to(device), processor, sampling, options.batch_size)

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine. Prompts of like length share a batch."""
        order = sorted(range(len(requests)), key=lambda n: (requests[n].samples, len(requests[n].text)))
        while order:
            samples = requests[order[0]].samples
            some = [n for n in order[: self._batch_size] if requests[n].samples == samples]
            order = order[len(some) :]
            with self._one_at_a_time:
                answers = self._generate([requests[n] for n in some])
            yield from zip(some, answers, strict=True)

    @torch.inference_mode()
    def _generate(self, requests: Sequence[Request]) -> list[Completion | PhotoError]:
        """Of requests that want equally many replies. Raises UsageError where one does not fit into memory."""
        try:
            return self._completions(requests)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        if len(requests) == 1:
            raise UsageError(
                f"--generator-model: one photo is too big for the memory ({reason}); ask for fewer --generated-candidates"
            )
        torch.cuda.empty_cache()
        self._batch_size = max(1, len(requests) // 2)
        middle = len(requests) // 2
        return self._generate(requests[:middle]) + self._generate(requests[middle:])

    def _completions(self, requests: Sequence[Request]) -> list[Completion | PhotoError]:
        prompts = [self._processor.apply_chat_template(_chat(r), add_generation_prompt=True) for r in requests]
        pictures = [[Image.open(io.BytesIO(request.image))] for request in requests]
        inputs = self._processor(text=prompts, images=pictures, return_tensors="pt", padding=True).to(
            self._model.device
        )
        samples, sampling = requests[0].samples, self._sampling
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        greedy = sampling.temperature == 0
        drawn = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
        output = self._model.generate(
            **inputs,
            do_sample=not greedy,
            num_return_sequences=1 if greedy else samples,
            max_new_tokens=sampling.max_tokens,
            pad_token_id=self._pad,
            **{name: value for name, value in drawn.items() if value is not None},
        )[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.batch_decode(output, skip_special_tokens=True)
        asked, said = inputs["attention_mask"].sum(dim=1).tolist(), (output != self._pad).sum(dim=1).tolist()
        each = len(texts) // len(requests)
        return [
            Completion(tuple(texts[n * each : (n + 1) * each]), asked[n], sum(said[n * each : (n + 1) * each]), 1)
            for n in range(len(requests))
        ]


def _chat(request: Request) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": request.text}, {"type": "image"}]}]
