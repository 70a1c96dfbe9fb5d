"""All of a photo's candidates in one forward pass that reads what they share once, and pads nothing.

A photo's prompts differ only after its own image. So they become one prefix and a suffix for each candidate, laid end to
end, for several photos if there is room. Every layer works on that one sequence, and attention alone knows of its parts: a
prefix sees itself, a suffix its prefix and itself. Scores are those of each pair alone, because every token sees what it
would see there, at the position it would have there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel, ProcessorMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from geoloc.ranking.prompt import PromptPlace, messages

ATTENTION = "geoloc_shared_prefix"
Grid = tuple[int, int]
"""Rows and columns of an image's patches."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as the language model sees it."""

    grid: Grid
    features: torch.Tensor
    """(tokens, width)."""


@dataclass(frozen=True)
class Part:
    """Of a prompt: its tokens, their rotary positions in the whole prompt, and the one image among them, if any."""

    ids: torch.Tensor
    """(t,)."""
    positions: torch.Tensor
    """(3, t)."""
    image: EncodedImage | None


@dataclass(frozen=True)
class Prompts:
    """A photo's: what is common to its candidates, and what is each candidate's own."""

    prefix: Part
    suffixes: list[Part]

    @property
    def tokens(self) -> int:
        return sum(len(part.ids) for part in (self.prefix, *self.suffixes))

    @property
    def longest(self) -> int:
        """Tokens of the longest single prompt."""
        return len(self.prefix.ids) + max(len(part.ids) for part in self.suffixes)

    def halves(self) -> tuple["Prompts", "Prompts"]:
        """The first and the second half of the candidates."""
        middle = len(self.suffixes) // 2
        return Prompts(self.prefix, self.suffixes[:middle]), Prompts(self.prefix, self.suffixes[middle:])


class Prompter:
    """Makes prompts for a model: its tokenizer, its chat template and its rule of positions. Runs on the CPU."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel, template: str) -> None:
        self._processor, self._tokenizer = processor, processor.tokenizer
        self._model, self._template = model, template
        self._merged = model.config.vision_config.spatial_merge_size**2
        self._image_id = model.config.image_token_id
        names = self._tokenizer.convert_ids_to_tokens([self._image_id, model.config.vision_end_token_id])
        self._image, self._image_end = names

    def prompts(
        self,
        query: EncodedImage,
        candidates: Sequence[tuple[PromptPlace, EncodedImage | None]],
        negatives: Sequence[PromptPlace],
    ) -> Prompts:
        """For a photo and its candidates, at least one, each with its image or None."""
        chats = [messages(self._template, place, negatives, image is not None) for place, image in candidates]
        texts = self._processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        cut = texts[0].index(self._image_end) + len(self._image_end)
        images = [query, *(image for _, image in candidates)]
        texts = [texts[0][:cut], *(text[cut:] for text in texts)]
        texts = [self._with_image_tokens(text, image) for text, image in zip(texts, images, strict=True)]
        ids = [torch.tensor(part) for part in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]
        start = len(ids[0])
        positions = self._positions(ids, images)
        parts = [Part(own, at[:, start:], image) for own, at, image in zip(ids[1:], positions, images[1:], strict=True)]
        return Prompts(Part(ids[0], positions[0][:, :start], query), parts)

    def _with_image_tokens(self, text: str, image: EncodedImage | None) -> str:
        """With a place for each of the image's tokens."""
        return text.replace(self._image, self._image * len(image.features), 1) if image else text

    def _positions(self, ids: list[torch.Tensor], images: list[EncodedImage | None]) -> list[torch.Tensor]:
        """(3, t) of each whole prompt, by the model's own rule."""
        whole = [torch.cat([ids[0], suffix]) for suffix in ids[1:]]
        padded = pad_sequence(whole, batch_first=True)
        there = pad_sequence([torch.ones_like(prompt) for prompt in whole], batch_first=True)
        grids = [(1, *shown.grid) for image in images[1:] for shown in (images[0], image) if shown]
        found, _ = self._model.get_rope_index(
            padded, (padded == self._image_id).int(), image_grid_thw=torch.tensor(grids), attention_mask=there
        )
        return [found[:, row, : len(prompt)] for row, prompt in enumerate(whole)]


@dataclass(frozen=True)
class Group:
    """A photo's prefix and suffixes in a pack, one after the other."""

    start: int
    prefix: int
    """Tokens."""
    suffixes: int
    """Tokens, of all together."""
    padded: torch.Tensor
    """(n, longest): the suffixes' tokens, one suffix a row, by their places in the pack; a shorter one repeats its last."""
    unpadded: torch.Tensor
    """(suffixes,): which of those, flattened, are no repetitions."""


@dataclass(frozen=True)
class Pack:
    """Prompts of several photos as one sequence of t tokens."""

    ids: torch.Tensor
    """(t,)."""
    positions: torch.Tensor
    """(3, 1, t)."""
    images: torch.Tensor
    """(v, width): the features of its images, one after the other."""
    last: torch.Tensor
    """(c,) the last token of each suffix, photo by photo."""
    groups: list[Group]

    @classmethod
    def of(cls, photos: Sequence[Prompts], device: torch.device | str) -> "Pack":
        groups, last, at = [], [], 0
        for photo in photos:
            prefix, lengths = len(photo.prefix.ids), torch.tensor([len(part.ids) for part in photo.suffixes])
            first, total = at + prefix + lengths.cumsum(0) - lengths, int(lengths.sum())
            column = torch.arange(int(lengths.max()))
            padded = first[:, None] + torch.minimum(column, lengths[:, None] - 1)
            unpadded = (column < lengths[:, None]).flatten().nonzero()[:, 0]
            groups.append(Group(at, prefix, total, padded.to(device), unpadded.to(device)))
            last.append(first + lengths - 1)
            at += prefix + total
        parts = [part for photo in photos for part in (photo.prefix, *photo.suffixes)]
        return cls(
            torch.cat([part.ids for part in parts]).to(device),
            torch.cat([part.positions for part in parts], dim=1)[:, None].to(device),
            torch.cat([part.image.features for part in parts if part.image]),
            torch.cat(last).to(device),
            groups,
        )


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    groups: list[Group] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attention of a pack for transformers' attention interface; without ``groups``, its SDPA.

    ``query`` (1, heads, t, d), ``key`` and ``value`` (1, kv heads, t, d): heads share keys in equal groups (GQA). Returns
    (1, t, heads, d).

    A pack is a prefix P and n suffixes S after it, for each photo. A token of P sees P up to itself; a token of a suffix sees P
    and its own suffix up to itself. So each photo is two calls of one kernel, and nothing is computed that is masked but what
    pads a shorter suffix to the longest.
    """
    if groups is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    gqa = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    query, key, value = query[0], key[0], value[0]  # (heads, t, d), (kv heads, t, d)
    out = []
    for group in groups:
        # 1. the prefix sees itself: (1, heads, P, d)
        prefix = slice(group.start, group.start + group.prefix)
        states = (states[None, :, prefix] for states in (query, key, value))
        out.append(functional.scaled_dot_product_attention(*states, is_causal=True, **gqa)[0])
        # 2. suffixes become rows of one batch, padded: queries (n, heads, longest, d)
        number, longest = group.padded.shape
        queries = query[:, group.padded].transpose(0, 1)
        # 3. each row's keys and values are the prefix's, which are not copied before they have to be, and its own:
        #    (n, kv heads, P + longest, d)
        keys, values = (
            torch.cat([states[:, prefix].expand(number, -1, -1, -1), states[:, group.padded].transpose(0, 1)], dim=2)
            for states in (key, value)
        )
        # 4. the last `longest` of P + longest positions see all before them and themselves
        mask = causal_lower_right(longest, group.prefix + longest)
        rows = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, **gqa)
        # 5. back into the pack's order, without padding: (heads, suffixes, d)
        out.append(rows.transpose(0, 1).flatten(1, 2)[:, group.unpadded])
    return torch.cat(out, dim=1).transpose(0, 1)[None], None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
