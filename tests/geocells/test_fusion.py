import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from geoloc.geocells.fusion import FusionBlock, FusionOptions, SemanticFusion

SMALL = FusionOptions(blocks=2, classes=5, patch=4, side=3, tokens=12, query=8, latent=4, heads=2, width=6)


@pytest.fixture
def fusion() -> SemanticFusion:
    torch.manual_seed(0)
    return SemanticFusion(SMALL).double().requires_grad_(False)


@pytest.fixture
def maps(random) -> torch.Tensor:
    return torch.from_numpy(random.integers(0, 5, (3, 12, 12)).astype(np.uint8))


def test_a_map_is_embedded_as_by_a_convolution_of_its_classes(fusion, maps):
    conv = nn.Conv2d(5, 8, 4, stride=4).double()
    with torch.no_grad():
        conv.weight.copy_(fusion.classes.weight[:-1].view(16, 5, 8).permute(2, 1, 0).reshape(8, 5, 4, 4))
        conv.bias.copy_(fusion.bias)
    expected = conv(functional.one_hot(maps.long(), 5).permute(0, 3, 1, 2).double()).flatten(2).transpose(1, 2)
    found = fusion.embed(maps) - fusion.positions
    assert torch.allclose(found[:, 1:], expected)
    assert torch.equal(found[0, 0], fusion.cls)


def test_pixels_of_no_class_are_left_out(fusion, maps):
    """255 is what segmentations have for what they do not know."""
    maps[:] = 255
    assert torch.allclose((fusion.embed(maps) - fusion.positions)[:, 1:], fusion.bias.expand(3, 9, 8))


def block_by_hand(block: FusionBlock, stream: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """One image, from the formulas: softmax(Q K' / sqrt d) V, head by head."""

    def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
        return x @ layer.weight.numpy().T + layer.bias.numpy()

    def norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt(x.var(axis=-1, keepdims=True) + layer.eps) * layer.weight.numpy() + layer.bias.numpy()

    latent = linear(block.latent, tokens)
    q, k, v = linear(block.query, norm(block.norm, stream)), linear(block.key, latent), linear(block.value, latent)
    width = q.shape[1] // block.heads
    heads = []
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        logits = q[:, part] @ k[:, part].T / np.sqrt(width)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
    stream = stream + linear(block.out, np.concatenate(heads, axis=1))
    hidden = torch.from_numpy(linear(block.mlp[0], norm(block.norm_mlp, stream)))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return stream + linear(block.mlp[2], gelu.numpy())


def test_a_block_is_its_formulas(fusion, random):
    stream, tokens = random.normal(size=(10, 8)), random.normal(size=(10, 12))
    found = fusion.blocks[0](torch.from_numpy(stream[None]), torch.from_numpy(tokens[None]))
    np.testing.assert_allclose(found[0].numpy(), block_by_hand(fusion.blocks[0], stream, tokens), rtol=1e-9)


def test_the_vector_comes_from_the_maps_first_token(fusion, maps, random):
    tokens = torch.from_numpy(random.normal(size=(3, 10, 12)))
    stream = fusion.embed(maps)
    for block in fusion.blocks:
        stream = block(stream, tokens)
    expected = functional.layer_norm(stream[:, 0], (8,), fusion.norm.weight, fusion.norm.bias)
    expected = expected @ fusion.out.weight.T + fusion.out.bias
    found = fusion(tokens, maps)
    assert found.shape == (3, 6)
    assert torch.allclose(found, expected)


def test_its_size_is_the_papers():
    """§IV: tokens of 1,024, queries of 128, a latent of 64, 150 classes on patches of 14 x 14, three blocks, 768 out."""
    with torch.device("meta"):
        fusion = SemanticFusion(FusionOptions())

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(fusion.classes) == 150 * 196 * 128 + 128
    assert fusion.positions.shape == (577, 128)
    linear = {"query": 128 * 129, "latent": 1024 * 64 + 64, "key": 65 * 128, "value": 65 * 128, "out": 128 * 129}
    block = fusion.blocks[0]
    assert {name: count(getattr(block, name)) for name in linear} == linear
    assert count(block.mlp) == 128 * 512 + 512 + 512 * 128 + 128
    assert len(fusion.blocks) == 3
    assert count(fusion.out) == 129 * 768
