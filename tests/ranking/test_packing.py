"""Attention of a pack, against a mask written out by hand."""

import itertools

import numpy as np
import pytest
import torch

from geoloc.ranking import attention
from geoloc.ranking.attention import lengths_of, picture_attention, shared_prefix_attention
from geoloc.ranking.packing import EncodedImage, Pack, Part, Prompts


def part(tokens: int, image: EncodedImage | None = None) -> Part:
    return Part(np.arange(tokens), np.broadcast_to(np.arange(tokens), (3, tokens)), image)


def by_hand(query, key, value, queries, keys, causal=False, scale=None):
    """What torch's kernel for sequences of many lengths says that it does, sequence by sequence."""
    out, sums = [], []
    for q, k in zip(itertools.pairwise(queries.bounds.tolist()), itertools.pairwise(keys.bounds.tolist()), strict=True):
        q, k = slice(*q), slice(*k)
        repeats = query.shape[1] // key.shape[1]
        own = key[k].repeat_interleave(repeats, 1), value[k].repeat_interleave(repeats, 1)
        logits = scale * torch.einsum("qhd,khd->hqk", query[q], own[0])
        if causal:
            logits = logits.masked_fill(~torch.ones(logits.shape[1:], dtype=torch.bool).tril(), -torch.inf)
        out.append(torch.einsum("hqk,khd->qhd", logits.softmax(2), own[1]))
        sums.append(logits.logsumexp(2))
    assert (queries.longest, keys.longest) == tuple(int(one.bounds.diff().max()) for one in (queries, keys))
    return torch.cat(out), torch.cat(sums, dim=1)


@pytest.fixture(params=["sdpa", "kernel"])
def kernel(request, monkeypatch) -> bool:
    monkeypatch.setattr(attention, "varlen", by_hand)
    return request.param == "kernel"


def attend(pack: Pack, heads: int = 4, kv_heads: int = 2, width: int = 8):
    """What the pack's attention gives for random states, and the states."""
    random = torch.Generator().manual_seed(0)
    shapes = ((1, count, len(pack.ids), width) for count in (heads, kv_heads, kv_heads))
    states = [torch.randn(shape, generator=random) for shape in shapes]
    found, _ = shared_prefix_attention(torch.nn.Module(), *states, None, layout=pack.layout, scaling=0.3)
    return found, states


def masked(states: list[torch.Tensor], sees: np.ndarray) -> torch.Tensor:
    """Softmax attention where token i sees those j with sees[i, j], every head with the keys of its group."""
    query, key, value = (tensor[0] for tensor in states)
    repeats = len(query) // len(key)
    key, value = key.repeat_interleave(repeats, 0), value.repeat_interleave(repeats, 0)
    logits = (0.3 * query @ key.transpose(1, 2)).masked_fill(~torch.from_numpy(sees), -torch.inf)
    return (logits.softmax(dim=2) @ value).transpose(0, 1)[None]


def test_six_tokens(kernel):
    """A prefix of two, a suffix of three and one of one:

    token   0 1 | 2 3 4 | 5
    sees      prefix, own suffix
    """
    image = EncodedImage((2, 2), torch.zeros(1, 5))
    pack = Pack.of([Prompts(part(2, image), [part(3), part(1)])], "cpu", kernel)
    assert pack.last.tolist() == [4, 5]
    assert pack.image_tokens.tolist() == [0]
    if not kernel:
        [group] = pack.layout
        assert (group.start, group.prefix) == (0, 2)
        assert group.padded.tolist() == [[2, 3, 4], [5, 5, 5]]
        assert group.unpadded.tolist() == [0, 1, 2, 3]
    sees = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 1, 1, 1, 0],
            [1, 1, 0, 0, 0, 1],
        ],
        bool,
    )
    found, states = attend(pack)
    assert torch.allclose(found, masked(states, sees), atol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_photos_do_not_see_each_other(kernel, kv_heads, random):
    image = EncodedImage((2, 2), torch.zeros(1, 5))
    photos = [
        Prompts(part(int(p), image), [part(int(t)) for t in random.integers(1, 6, 3)]) for p in random.integers(2, 9, 4)
    ]
    pack = Pack.of(photos, "cpu", kernel)
    owner = []  # of each token: its photo, and its suffix (0 for the prefix)
    for number, photo in enumerate(photos):
        owner += [(number, 0)] * len(photo.prefix.ids)
    for number, photo in enumerate(photos):
        for suffix, one in enumerate(photo.suffixes, 1):
            owner += [(number, suffix)] * len(one.ids)
    sees = np.array(
        [[j <= i and p == q and (t in (0, s)) for j, (q, t) in enumerate(owner)] for i, (p, s) in enumerate(owner)]
    )
    found, states = attend(pack, kv_heads=kv_heads)
    assert torch.allclose(found, masked(states, sees), atol=1e-6)


def test_pictures_of_one_batch_do_not_see_each_other():
    lengths = lengths_of([4, 6, 4, 1, 6], "cpu")
    states = [torch.randn(1, 2, 21, 8, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    found, _ = picture_attention(torch.nn.Module(), *states, None, lengths.bounds, 6, scaling=0.3)
    expected, _ = by_hand(*(one[0].transpose(0, 1) for one in states), lengths, lengths, scale=0.3)
    assert torch.allclose(found[0], expected, atol=1e-6)
