"""Attention over many sequences that lie end to end: of a pack's prompts (geoloc.ranking.packing), and of pictures.

Where torch has its kernel for such sequences, a pack of any number of photos is three calls a layer, and a batch of pictures one:
no key is copied, and nothing is padded. Elsewhere, and where gradients are wanted, it is torch's SDPA, part by part.
"""

import functools
import logging
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from geoloc.storage import describe

log = logging.getLogger("geoloc")

OF_PACKS, OF_PICTURES = "geoloc_shared_prefix", "geoloc_flash_pictures"
"""Names in transformers' register. By ``flash`` it knows who takes all pictures at once."""
_TRIED = (5, 3, 9)
"""Lengths that the kernel is tried on."""


@dataclass(frozen=True)
class Lengths:
    """Of sequences that lie end to end."""

    bounds: torch.Tensor
    """(n + 1,) int32: where each begins, and the last ends."""
    longest: int


@dataclass(frozen=True)
class Group:
    """A photo's prefix and suffixes in a pack, for SDPA."""

    start: int
    """Of its prefix."""
    prefix: int
    """Tokens."""
    padded: torch.Tensor
    """(n, longest): the suffixes' tokens, one suffix a row, by their places in the pack; a shorter one repeats its last."""
    unpadded: torch.Tensor
    """(suffixes,): which of those, flattened, are no repetitions."""


@dataclass(frozen=True)
class Segments:
    """A pack's, for the kernel."""

    tokens: int
    """Of all prefixes, which come first."""
    prefixes: Lengths
    photos: Lengths
    """Tokens of each photo's suffixes."""
    suffixes: Lengths


Layout = list[Group] | Segments


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: Lengths,
    keys: Lengths,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sequence of ``query`` (t, heads, d) attends to that of ``key`` and ``value`` (s, kv heads, d) of the same number. Returns
    (t, heads, d), and the log-sum-exp of the logits (heads, t)."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn  # not in every torch

    return varlen_attn(
        query,
        key,
        value,
        queries.bounds,
        keys.bounds,
        queries.longest,
        keys.longest,
        return_aux=AuxRequest(lse=True),
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )


@functools.cache
def has_kernel(device: str, dtype: torch.dtype) -> bool:
    """Whether ``varlen`` works there, and gives SDPA's answers: found out by trying it on a little."""
    if torch.device(device).type != "cuda":
        return False
    try:
        states = [torch.randn(sum(_TRIED), heads, 64, device=device, dtype=dtype) for heads in (4, 2, 2)]
        lengths = lengths_of(list(_TRIED), device)
        found, _ = varlen(*states, lengths, lengths, causal=True)
        pieces = zip(*(one.split(_TRIED) for one in states), strict=True)
        expected = torch.cat(
            [
                functional.scaled_dot_product_attention(
                    *(part.transpose(0, 1)[None] for part in piece), is_causal=True, enable_gqa=True
                )[0].transpose(0, 1)
                for piece in pieces
            ]
        )
        works = torch.allclose(found, expected, atol=2e-2, rtol=2e-2)
    except Exception as error:  # each torch and each device fails in its own way
        log.warning(
            "Attention is SDPA's: torch's kernel for sequences of many lengths does not work (%s)", describe(error)
        )
        return False
    if not works:
        log.warning("Attention is SDPA's: torch's kernel for sequences of many lengths gives other answers")
    return works


def lengths_of(lengths: list[int], device: torch.device | str) -> Lengths:
    return Lengths(torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32), max(lengths))


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: Layout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attention of a pack for transformers' attention interface; without ``layout``, its SDPA.

    ``query`` (1, heads, t, d), ``key`` and ``value`` (1, kv heads, t, d): heads share keys in equal groups (GQA). Returns
    (1, t, heads, d).

    A pack is the prefixes of its photos, and then their suffixes. A token of a prefix P sees P up to itself; a token of a suffix
    sees P and its own suffix up to itself.
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    attend = _by_kernel if isinstance(layout, Segments) else _by_sdpa
    return attend(query[0], key[0], value[0], layout, scaling)[None], None


def _by_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Segments, scaling: float | None
) -> torch.Tensor:
    """A suffix attends to its prefix, and to itself, apart; what it sees of each counts by the sums of its exponentials."""
    query, key, value = (states.transpose(0, 1) for states in (query, key, value))  # (t, heads, d)
    ahead, behind = slice(layout.tokens), slice(layout.tokens, None)
    prefixes, _ = varlen(
        query[ahead], key[ahead], value[ahead], layout.prefixes, layout.prefixes, causal=True, scale=scaling
    )
    shared, shared_sum = varlen(query[behind], key[ahead], value[ahead], layout.photos, layout.prefixes, scale=scaling)
    own, own_sum = varlen(
        query[behind], key[behind], value[behind], layout.suffixes, layout.suffixes, causal=True, scale=scaling
    )
    weight = torch.sigmoid(shared_sum - own_sum).transpose(0, 1)[..., None]  # exp a / (exp a + exp b)
    return torch.cat([prefixes, torch.lerp(own, shared, weight.to(own.dtype))])


def _by_sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: list[Group], scaling: float | None
) -> torch.Tensor:
    """Two calls a photo; nothing is computed that is masked but what pads a shorter suffix to the longest."""
    gqa = {"scale": scaling, "enable_gqa": query.shape[0] != key.shape[0]}
    prefixes, suffixes = [], []
    for group in layout:
        # 1. the prefix sees itself: (1, heads, P, d)
        prefix = slice(group.start, group.start + group.prefix)
        states = (states[None, :, prefix] for states in (query, key, value))
        prefixes.append(functional.scaled_dot_product_attention(*states, is_causal=True, **gqa)[0])
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
        suffixes.append(rows.transpose(0, 1).flatten(1, 2)[:, group.unpadded])
    return torch.cat([*prefixes, *suffixes], dim=1).transpose(0, 1)


def picture_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    **others: object,
) -> tuple[torch.Tensor, None]:
    """Attention of all pictures of a batch, or of all their windows, for transformers' attention interface.

    ``query``, ``key``, ``value`` (1, heads, t, d). Returns (1, t, heads, d).
    """
    if query.is_cuda:
        lengths = Lengths(cu_seq_lens_q, max_length_q)
        states = (states[0].transpose(0, 1) for states in (query, key, value))
        return varlen(*states, lengths, lengths, scale=scaling)[0][None], None
    lengths = cu_seq_lens_q.diff()
    out = torch.empty_like(query)
    for length in lengths[lengths > 0].unique().tolist():  # those of one length at once: (n, heads, length, d)
        at = (cu_seq_lens_q[:-1][lengths == length, None] + torch.arange(length)).flatten()
        states = (states[0, :, at].unflatten(1, (-1, length)).transpose(0, 1) for states in (query, key, value))
        rows = functional.scaled_dot_product_attention(*states, scale=scaling)
        out[0, :, at] = rows.transpose(0, 1).flatten(1, 2)
    return out.transpose(1, 2), None


AttentionInterface.register(OF_PACKS, shared_prefix_attention)
AttentionInterface.register(OF_PICTURES, picture_attention)
AttentionMaskInterface.register(OF_PACKS, sdpa_mask)
