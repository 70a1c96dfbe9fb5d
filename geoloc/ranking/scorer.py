"""GeoRanker loaded: a photo and its candidates in, a score for each candidate out. The same object serves archives, requests
and evaluation."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from geoloc.errors import PhotoError, UsageError
from geoloc.photos.decode import PhotoFile
from geoloc.photos.views import AreaView
from geoloc.ranking.georanker import GeoRankerModel, load_base, load_processor, with_adapter
from geoloc.ranking.options import PromptOptions, RankerOptions
from geoloc.ranking.packing import EncodedImage, Grid, Pack, Prompts
from geoloc.ranking.pictures import Patcher
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.prompting import Prompter
from geoloc.ranking.query import RankCandidate, RankQuery

GPU_TOKENS, CPU_TOKENS = 16_384, 4_096
"""Of a forward pass, unless a single photo has more."""
PHOTOS_AT_ONCE = 16
"""Whose pictures are encoded together."""

Item = TypeVar("Item")
Name = tuple[str, int]
"""Of a picture: a query by its number in the batch, a candidate by its key if it has one."""


@dataclass(frozen=True)
class _Asked:
    """Some photos' prompts, and the pictures that have to be encoded for them."""

    prompts: list[Prompts | PhotoError]
    new: list[tuple[EncodedImage, np.ndarray]]
    """Each with its patches (geoloc.ranking.pictures)."""


class GeoRankerScorer:
    """While the device is at some photos, the next are decoded, and put into numbers, on the CPU."""

    def __init__(
        self,
        model: GeoRankerModel,
        folder: str,
        prompt: PromptOptions,
        device: str = "cpu",
        threads: int = 1,
        max_tokens: int | None = None,
        cache_bytes: int = 2 << 30,
    ) -> None:
        """``folder`` is where the model's processor is. Raises UsageError where there is none."""
        self._prompt, self._model, self._device = prompt, model, device
        processor = load_processor(folder)
        self._patcher = Patcher.of(processor.image_processor)
        self._prompter = Prompter(processor, model.model, prompt.template)
        self.view: AreaView = self._patcher.view(prompt.min_pixels, prompt.max_pixels)
        self._context = model.model.config.get_text_config().max_position_embeddings
        self._on_gpu = torch.device(device).type == "cuda"
        self._max_tokens = max_tokens or (GPU_TOKENS if self._on_gpu else CPU_TOKENS)
        token_bytes = model.model.config.get_text_config().hidden_size * model.model.dtype.itemsize
        self._cache = _FeatureCache(cache_bytes // token_bytes)
        self._pool = ThreadPoolExecutor(threads)
        self._ahead = ThreadPoolExecutor(1)
        """The one thread that asks, and so the only one that looks into the cache."""

    @classmethod
    def load(cls, options: RankerOptions, device: str = "cpu", threads: int = 1, **others: int) -> "GeoRankerScorer":
        """bfloat16 on a GPU, float32 elsewhere. Raises UsageError where there is no such model or adapter."""
        model = load_base(options.model, torch.bfloat16 if device == "cuda" else torch.float32, device)
        if options.adapter:
            # into the model's own tensors: half the launches of q, k and v
            with_adapter(model, options.adapter).merge_adapter()
        cache = int(options.cache_gb * 2**30)
        return cls(model.eval(), options.model, options.prompt, device, threads, cache_bytes=cache, **others)

    @torch.inference_mode()
    def rank(self, queries: Sequence[RankQuery]) -> list[np.ndarray | PhotoError]:
        """For each photo the scores (c,) of its candidates, float32, highest is nearest; or what is wrong with it.

        Raises UsageError where a single candidate does not fit into the device's memory.
        """
        answers: list[torch.Tensor | PhotoError] = []
        some = [queries[start : start + PHOTOS_AT_ONCE] for start in range(0, len(queries), PHOTOS_AT_ONCE)]
        following = self._ahead.submit(self._ask, some[0]) if some else None
        try:
            for number in range(len(some)):
                asked = following.result()
                if number + 1 < len(some):
                    following = self._ahead.submit(self._ask, some[number + 1])
                self._encode(asked.new)
                answers += self._rank(asked.prompts)
        except BaseException:
            following.cancel()
            self._ahead.submit(self._cache.clear).result()  # what it holds may not have been encoded
            raise
        scored = [answer for answer in answers if not isinstance(answer, PhotoError)]
        # the only time that the device is waited for
        scores = torch.cat(scored).cpu().numpy() if scored else np.zeros(0)
        of_scored = iter(np.split(scores, np.cumsum([len(one) for one in scored])[:-1]))
        return [answer if isinstance(answer, PhotoError) else _checked(next(of_scored)) for answer in answers]

    def encode_queries(self, queries: Sequence[RankQuery]) -> list[Prompts | PhotoError]:
        """The photos' prompts, their pictures and their candidates' encoded."""
        asked = self._ask(queries)
        self._encode(asked.new)
        return asked.prompts

    def _ask(self, queries: Sequence[RankQuery]) -> _Asked:
        """On the CPU alone."""
        data: dict[Name, np.ndarray | bytes] = {}
        images: dict[Name, EncodedImage | None] = {}
        for number, query in enumerate(queries):
            data["query", number] = query.picture
            for candidate in query.candidates:
                name = _name(candidate)
                if self._has_image(candidate) and name not in data and name not in images:
                    if kept := self._cache.get(name):
                        images[name] = kept
                    else:
                        data[name] = candidate.image
        new = []
        for name, picture in zip(data, self._pool.map(self._picture, data.values()), strict=True):
            images[name] = picture and EncodedImage(picture[0])
            if picture:
                new.append((images[name], picture[1]))
                if name[0] == "kept":
                    self._cache.put(name, images[name], self._prompter.tokens_of(picture[0]))
        prompts = [self._prompts(query, images["query", number], images) for number, query in enumerate(queries)]
        return _Asked(prompts, new)

    def _rank(self, prompts_of: list[Prompts | PhotoError]) -> list[torch.Tensor | PhotoError]:
        sound = [prompts for prompts in prompts_of if isinstance(prompts, Prompts)]
        scores = []
        for pack in self._packs(sound, lambda prompts: prompts.tokens):
            scores += self._score(pack)
        of_sound = iter(scores)
        return [next(of_sound) if isinstance(prompts, Prompts) else prompts for prompts in prompts_of]

    def _encode(self, new: list[tuple[EncodedImage, np.ndarray]]) -> None:
        for some in self._packs(new, lambda item: self._prompter.tokens_of(item[0].grid)):
            features = self._encode_batch([patches for _, patches in some], [image.grid for image, _ in some])
            for (image, _), own in zip(some, features, strict=True):
                image.features = own.clone()  # it is kept longer than the batch that it is of

    def _has_image(self, candidate: RankCandidate) -> bool:
        return self._prompt.pictures and candidate.image is not None

    def _picture(self, data: np.ndarray | bytes) -> tuple[Grid, np.ndarray] | None:
        """Its patches; None for a candidate's picture that cannot be read."""
        if not isinstance(data, np.ndarray):
            try:
                photo = PhotoFile(data)
                data = self.view.of(photo.picture(self.view.scale(photo.width, photo.height)))
            except PhotoError:
                return None
        return self._patcher.grid(data), self._patcher.cut(data)

    def _prompts(
        self, query: RankQuery, picture: EncodedImage, images: dict[Name, EncodedImage | None]
    ) -> Prompts | PhotoError:
        if not query.candidates:
            return PhotoError("no_candidates", "there is nothing to rank")
        candidates = [
            (self._place(candidate.place), images[_name(candidate)] if self._has_image(candidate) else None)
            for candidate in query.candidates
        ]
        negatives = [self._place(place) for place in query.negatives[-self._prompt.negatives :]]
        prompts = self._prompter.prompts(picture, candidates, negatives if self._prompt.negatives else [])
        if prompts.longest > self._context:
            return PhotoError("too_long", f"a prompt of {prompts.longest} tokens; the model takes {self._context}")
        return prompts

    def _place(self, place: PromptPlace) -> PromptPlace:
        return place if self._prompt.words else PromptPlace(place.lat, place.lon)

    def _packs(self, items: Sequence[Item], tokens: Callable[[Item], int]) -> Iterator[list[Item]]:
        """In their order, as many together as a forward pass takes, one at least."""
        pack, size = [], 0
        for item in items:
            if pack and size + tokens(item) > self._max_tokens:
                yield pack
                pack, size = [], 0
            pack.append(item)
            size += tokens(item)
        if pack:
            yield pack

    def _encode_batch(self, cuts: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[torch.Tensor]:
        try:
            return self._model.encode_images(self._patcher.normalised(cuts, self._device), grids)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        self._make_room(reason, splits=len(cuts) > 1)
        middle = len(cuts) // 2
        return self._encode_batch(cuts[:middle], grids[:middle]) + self._encode_batch(cuts[middle:], grids[middle:])

    def _score(self, photos: Sequence[Prompts]) -> list[torch.Tensor]:
        """For each photo (c,)."""
        try:
            scores = self._model(Pack.of(photos, self._device, self._model.kernel))
            return list(scores.split([len(photo.suffixes) for photo in photos]))
        except torch.OutOfMemoryError as error:
            reason = str(error)
        self._make_room(reason, splits=len(photos) > 1 or len(photos[0].suffixes) > 1)
        middle = len(photos) // 2
        if middle:
            return self._score(photos[:middle]) + self._score(photos[middle:])
        return [torch.cat([scores for half in photos[0].halves() for scores in self._score([half])])]

    def _make_room(self, reason: str, splits: bool) -> None:
        """After running out of memory: take less at once from now on. Called when the failed pass has let go of its own."""
        if not splits:
            raise UsageError(f"--max-pixels {self.view.max_pixels}: one candidate is too big for the memory ({reason})")
        self._max_tokens //= 2
        if self._on_gpu:
            torch.cuda.empty_cache()


def _name(candidate: RankCandidate) -> Name:
    return ("passing", id(candidate)) if candidate.key is None else ("kept", candidate.key)


def _checked(scores: np.ndarray) -> np.ndarray | PhotoError:
    if not np.isfinite(scores).all():
        return PhotoError("not_a_number", f"the ranker's scores are {', '.join(map(str, scores[:5]))} …")
    return scores


class _FeatureCache:
    """The most recently used images, up to so many tokens of features; some may have yet to be encoded."""

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._images: OrderedDict[Name, tuple[EncodedImage, int]] = OrderedDict()

    def get(self, name: Name) -> EncodedImage | None:
        if name not in self._images:
            return None
        self._images.move_to_end(name)
        return self._images[name][0]

    def put(self, name: Name, image: EncodedImage, tokens: int) -> None:
        self._images[name] = image, tokens
        self._size += tokens
        while self._size > self._limit:
            _, (_, oldest) = self._images.popitem(last=False)
            self._size -= oldest

    def clear(self) -> None:
        self._images.clear()
        self._size = 0
