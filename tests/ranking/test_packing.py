"""Attention of a pack, against a mask written out by hand."""

import numpy as np
import pytest
import torch

from geoloc.ranking.packing import EncodedImage, Pack, Part, Prompts, shared_prefix_attention


def part(tokens: int, image: EncodedImage | None = None) -> Part:
    return Part(torch.arange(tokens), torch.arange(tokens).expand(3, -1), image)


def attend(pack: Pack, heads: int = 4, kv_heads: int = 2, width: int = 8):
    """What the pack's attention gives for random states, and the states."""
    random = torch.Generator().manual_seed(0)
    shapes = ((1, count, len(pack.ids), width) for count in (heads, kv_heads, kv_heads))
    states = [torch.randn(shape, generator=random) for shape in shapes]
    found, _ = shared_prefix_attention(torch.nn.Module(), *states, None, groups=pack.groups, scaling=0.3)
    return found, states


def masked(states: list[torch.Tensor], sees: np.ndarray) -> torch.Tensor:
    """Softmax attention where token i sees those j with sees[i, j], every head with the keys of its group."""
    query, key, value = (tensor[0] for tensor in states)
    repeats = len(query) // len(key)
    key, value = key.repeat_interleave(repeats, 0), value.repeat_interleave(repeats, 0)
    logits = (0.3 * query @ key.transpose(1, 2)).masked_fill(~torch.from_numpy(sees), -torch.inf)
    return (logits.softmax(dim=2) @ value).transpose(0, 1)[None]


def test_six_tokens():
    """A prefix of two, a suffix of three and one of one:

    token   0 1 | 2 3 4 | 5
    sees      prefix, own suffix
    """
    image = EncodedImage((2, 2), torch.zeros(1, 5))
    pack = Pack.of([Prompts(part(2, image), [part(3), part(1)])], "cpu")
    assert pack.last.tolist() == [4, 5]
    [group] = pack.groups
    assert (group.start, group.prefix, group.suffixes) == (0, 2, 4)
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
def test_photos_do_not_see_each_other(kv_heads, random):
    image = EncodedImage((2, 2), torch.zeros(1, 5))
    photos = [
        Prompts(part(int(p), image), [part(int(t)) for t in random.integers(1, 6, 3)]) for p in random.integers(2, 9, 4)
    ]
    pack = Pack.of(photos, "cpu")
    owner = []  # of each token: its photo, and its suffix (0 for the prefix)
    for number, photo in enumerate(photos):
        for suffix, one in enumerate((photo.prefix, *photo.suffixes)):
            owner += [(number, suffix)] * len(one.ids)
    sees = np.array(
        [[j <= i and p == q and (t in (0, s)) for j, (q, t) in enumerate(owner)] for i, (p, s) in enumerate(owner)]
    )
    found, states = attend(pack, kv_heads=kv_heads)
    assert torch.allclose(found, masked(states, sees), atol=1e-6)
