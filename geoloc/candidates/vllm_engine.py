"""Replies of a vision-language model that vLLM runs in this process. vLLM is an extra: its pins are its own."""

import io
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.options import EngineOptions, Sampling
from geoloc.errors import PhotoError, UsageError
from geoloc.storage import describe


def load_vllm() -> Any:
    """The module. Raises UsageError where it is not there."""
    try:
        import vllm
    except ImportError as error:
        raise UsageError("--generator vllm: is not installed: pip install vllm, or --generator transformers") from error
    return vllm


class Vllm:
    def __init__(self, model: Any, parameters: Any) -> None:
        """A ``vllm.LLM`` and its ``SamplingParams``."""
        self._model, self._parameters = model, parameters
        self._one_at_a_time = threading.Lock()

    @classmethod
    def load(cls, options: EngineOptions, sampling: Sampling) -> "Vllm":
        """Raises UsageError where vLLM or the model cannot be had."""
        vllm = load_vllm()
        known = {name: getattr(sampling, name) for name in ("temperature", "top_p", "seed", "max_tokens")}
        parameters = vllm.SamplingParams(**{name: value for name, value in known.items() if value is not None})
        try:
            model = vllm.LLM(options.model, limit_mm_per_prompt={"image": 1}, trust_remote_code=False)
        except Exception as error:  # a GPU, the hub and the model's own code each fail in their own way
            raise UsageError(f"--generator-model {options.model}: vLLM cannot load it ({describe(error)})") from error
        return cls(model, parameters)

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion | PhotoError]]:
        """As geoloc.candidates.engine.Engine. All at once: vLLM batches them itself."""
        chats, parameters = [], []
        for request in requests:
            picture = {"type": "image_pil", "image_pil": Image.open(io.BytesIO(request.image))}
            chats.append([{"role": "user", "content": [{"type": "text", "text": request.text}, picture]}])
            parameters.append(self._parameters.clone())
            parameters[-1].n = request.samples
        with self._one_at_a_time:
            outputs = self._model.chat(chats, parameters, use_tqdm=False)
        for number, output in enumerate(outputs):
            said = sum(len(sample.token_ids) for sample in output.outputs)
            replies = tuple(sample.text for sample in output.outputs)
            yield number, Completion(replies, len(output.prompt_token_ids), said, 1)
