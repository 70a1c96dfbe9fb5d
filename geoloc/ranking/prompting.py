"""From what is asked about a photo to token numbers and positions, in a millisecond or two. Runs on the CPU, and needs no features."""

import functools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, ProcessorMixin

from geoloc.errors import UsageError
from geoloc.ranking.packing import EncodedImage, Grid, Part, Prompts
from geoloc.ranking.prompt import PromptPlace, messages

KEPT = 100_000
"""Texts whose tokens are remembered: those about places come again with the next photo."""
_TRIED = [
    f'{start} latitude: -1.5, longitude: 2e-05, O\'Hara & Sons <b>  "{words}" é?\n'
    for start, words in (("How far is this place from", "x"), ("Negative examples:", "long " * 1_000))
]
"""Texts that a chat template might change, were it one that changes texts."""
_SAMPLE = [(6, 4), (2, 8)]
"""Grids that positions are tried on."""


Form = list[tuple[str, int | None]] | None
"""The chat around a message's texts, and where each of them goes, by its number; None where that is no fixed place."""


class Prompter:
    """Makes prompts for a model: its tokenizer, its chat template and its rule of positions."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel, template: str) -> None:
        """Raises UsageError for a model that counts positions otherwise than Qwen2-VL does for still pictures."""
        self._processor, self._tokenizer, self._template = processor, processor.tokenizer, template
        self._merge = model.config.vision_config.spatial_merge_size
        self._image_id = model.config.image_token_id
        names = self._tokenizer.convert_ids_to_tokens([self._image_id, model.config.vision_end_token_id])
        self._image, self._image_end = names
        self._tokens: OrderedDict[str, np.ndarray] = OrderedDict()
        self._forms: dict[tuple[bool, int], Form] = {}
        self._check_positions(model)

    def tokens_of(self, grid: Grid) -> int:
        """That an image has."""
        return grid[0] * grid[1] // self._merge**2

    def prompts(
        self,
        query: EncodedImage,
        candidates: Sequence[tuple[PromptPlace, EncodedImage | None]],
        negatives: Sequence[PromptPlace],
    ) -> Prompts:
        """For a photo and its candidates, at least one, each with its image or None. Images need not have been encoded."""
        texts = [self._text(place, negatives, image is not None) for place, image in candidates]
        cut = texts[0].index(self._image_end) + len(self._image_end)
        # a special token, such as an image's, keeps what is before it from merging with what is behind it
        pieces = [texts[0][:cut].split(self._image), *(text[cut:].split(self._image) for text in texts)]
        tokens = self._tokenized([piece for pair in pieces for piece in pair])
        images = [query, *(image for _, image in candidates)]
        prefix, end = self._part(tokens, pieces[0], query, 0)
        suffixes = [self._part(tokens, pair, image, end)[0] for pair, image in zip(pieces[1:], images[1:], strict=True)]
        return Prompts(prefix, suffixes)

    def _text(self, place: PromptPlace, negatives: Sequence[PromptPlace], has_image: bool) -> str:
        """As the model's chat template has it."""
        asked = messages(self._template, place, negatives, has_image)
        words = [part["text"] for part in asked[0]["content"] if part["type"] == "text"]
        shape = has_image, len(words)
        if shape not in self._forms:
            self._forms[shape] = self._form(*shape)
        form = self._forms[shape]
        if form is None:
            return self._rendered(asked)
        return "".join(piece if number is None else words[number] for piece, number in form)

    def _form(self, has_image: bool, texts: int) -> "Form":
        """Of a message with so many texts."""
        blanks = [PromptPlace(0.0, 0.0)] * (texts - 1)
        shapes = []
        for marks in (["@@0@@", "@@1@@"][:texts], _TRIED[:texts]):
            asked = messages(self._template, PromptPlace(0.0, 0.0), blanks, has_image)
            for part, mark in zip([p for p in asked[0]["content"] if p["type"] == "text"], marks, strict=True):
                part["text"] = mark
            shapes.append((marks, self._rendered(asked)))
        (marks, chat), (others, expected) = shapes
        form = []
        for number, mark in enumerate(marks):
            if chat.count(mark) != 1:
                return None
            before, chat = chat.split(mark)
            form += [(before, None), ("", number)]
        form.append((chat, None))
        filled = "".join(piece if number is None else others[number] for piece, number in form)
        return form if filled == expected else None

    def _rendered(self, asked: list[dict]) -> str:
        [text] = self._processor.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
        return text

    def _tokenized(self, texts: list[str]) -> dict[str, np.ndarray]:
        found = {}
        for text in texts:
            if text in self._tokens:
                self._tokens.move_to_end(text)
                found[text] = self._tokens[text]
        if new := list(dict.fromkeys(text for text in texts if text not in found)):
            ids = self._tokenizer(new, add_special_tokens=False)["input_ids"]
            made = {text: np.array(own, np.int64) for text, own in zip(new, ids, strict=True)}
            found |= made
            self._tokens |= made
            while len(self._tokens) > KEPT:
                self._tokens.popitem(last=False)
        return found

    def _part(
        self, tokens: dict[str, np.ndarray], pieces: list[str], image: EncodedImage | None, position: int
    ) -> tuple[Part, int]:
        """Of one text, or of two with an image between them, from a position on; and the position behind it."""
        before = tokens[pieces[0]]
        if image is None:
            return Part(before, _counted(position, len(before)), None), position + len(before)
        behind = tokens[pieces[1]]
        shown = np.full(self.tokens_of(image.grid), self._image_id)
        seen, end = _seen(position + len(before), image.grid, self._merge)
        places = [_counted(position, len(before)), seen, _counted(end, len(behind))]
        part = Part(np.concatenate([before, shown, behind]), np.concatenate(places, axis=1), image, len(before))
        return part, end + len(behind)

    def _check_positions(self, model: PreTrainedModel) -> None:
        text = np.array([self._tokenizer.convert_tokens_to_ids(self._image_end)] * 2)
        one, two = (EncodedImage(grid) for grid in _SAMPLE)
        first, end = self._part({"a": text}, ["a", "a"], one, 0)
        second, _ = self._part({"a": text}, ["a", "a"], two, end)
        ids = torch.from_numpy(np.concatenate([first.ids, second.ids]))[None]
        grids = torch.tensor([(1, *grid) for grid in _SAMPLE])
        expected, _ = model.get_rope_index(
            ids, (ids == self._image_id).int(), grids, attention_mask=torch.ones_like(ids)
        )
        if not np.array_equal(expected[:, 0], np.concatenate([first.positions, second.positions], axis=1)):
            raise UsageError(
                f"--ranker-model {model.name_or_path}: counts the positions of tokens otherwise than a Qwen2-VL; take a "
                "Qwen2-VL or Qwen2.5-VL"
            )


def _counted(start: int, tokens: int) -> np.ndarray:
    """Rotary positions of text, (3, tokens)."""
    return np.broadcast_to(np.arange(start, start + tokens), (3, tokens))


@functools.lru_cache(maxsize=1024)
def _grid(grid: Grid, merge: int) -> np.ndarray:
    """Of an image's tokens: 0, row and column, (3, tokens)."""
    rows, columns = grid[0] // merge, grid[1] // merge
    return np.stack([np.zeros(rows * columns, np.int64), *(axis.ravel() for axis in np.indices((rows, columns)))])


def _seen(start: int, grid: Grid, merge: int) -> tuple[np.ndarray, int]:
    """Rotary positions of an image (Qwen2-VL's M-RoPE), and the first one behind it."""
    return start + _grid(grid, merge), start + max(grid) // merge
