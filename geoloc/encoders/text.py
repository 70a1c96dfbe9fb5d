"""Words about a place to vectors."""

import hashlib
import re

import numpy as np
import open_clip
import torch

from geoloc.encoders.config import LITE, EncoderConfig
from geoloc.errors import UsageError
from geoloc.storage import describe

HASHED_DIMENSION = 256


def place_sentence(place: dict | None) -> str | None:
    """G3's: ``A street view photo taken in city, region, country``; None where none of them is known."""
    names = [place[field] for field in ("city", "region", "country") if place and place.get(field)]
    return f"A street view photo taken in {', '.join(names)}" if names else None


class TextEncoder:
    """An open_clip text tower, frozen. Raises UsageError where its weights cannot be had."""

    def __init__(self, config: EncoderConfig, device: str = "cpu") -> None:
        self._device = torch.device(device)
        try:
            model = open_clip.create_model(
                config.model, pretrained=config.pretrained, require_pretrained=True, weights_only=True
            )
            self._tokenizer = open_clip.get_tokenizer(config.model)
        except Exception as error:  # the hub, the file system and the model's own code each fail in their own way
            raise UsageError(
                f"--encoder {config.name}: cannot load the text model {config.model} ({describe(error)})"
            ) from error
        self._model = model.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def encode(self, sentences: list[str], batch: int = 256) -> np.ndarray:
        """(n, d) float32, not normalised. A sentence longer than the model's context is cut."""
        parts = [
            self._model.encode_text(self._tokenizer(sentences[start : start + batch]).to(self._device)).float().cpu()
            for start in range(0, len(sentences), batch)
        ]
        return torch.cat(parts).numpy()


class HashedWords:
    """Text features for an image tower that has no text tower: every word a fixed random vector, added up.

    It knows which words are the same, and nothing of what they mean.
    """

    def encode(self, sentences: list[str]) -> np.ndarray:
        """(n, HASHED_DIMENSION) float32."""
        words = [re.findall(r"\w+", sentence.lower()) for sentence in sentences]
        known = {word: _word_vector(word) for word in {word for sentence in words for word in sentence}}
        return np.stack(
            [sum((known[word] for word in sentence), np.zeros(HASHED_DIMENSION, np.float32)) for sentence in words]
        )


def _word_vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
    return (np.random.default_rng(seed).normal(size=HASHED_DIMENSION) / np.sqrt(HASHED_DIMENSION)).astype(np.float32)


def text_encoder(config: EncoderConfig, device: str = "cpu") -> TextEncoder | HashedWords:
    return HashedWords() if config.model == LITE else TextEncoder(config, device)
