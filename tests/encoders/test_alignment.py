"""G3's alignment against its formulas, written out in NumPy."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geoloc.encoders.alignment import (
    WEIGHTS,
    Alignment,
    alignment_loss,
    info_nce,
    keep_parts,
    load_alignment,
    part_of,
    same_place,
)
from geoloc.encoders.config import ALIGNMENT, encoder_config, image_model
from geoloc.encoders.location import LocationEncoder
from geoloc.errors import UsageError
from geoloc.geo.projections import mercator
from geoloc.storage import Folder


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    torch.manual_seed(0)
    return Alignment(24, 10)


def unit(random, *shape):
    vectors = random.normal(size=shape)
    return torch.tensor(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def cross_entropy(logits):
    return -np.mean(np.diag(logits) - np.log(np.exp(logits).sum(axis=1)))


def by_hand(left, right):
    logits = np.exp(3.99) * left.numpy() @ right.numpy().T
    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


SCALE = torch.tensor(3.99, dtype=torch.float64)


def test_info_nce_is_clips(random):
    left, right = unit(random, 6, 8), unit(random, 6, 8)
    assert info_nce(left, right, SCALE).item() == pytest.approx(by_hand(left, right), abs=1e-9)
    assert info_nce(left, left, SCALE).item() < 0.01
    same = torch.ones(4, 8, dtype=torch.float64) / np.sqrt(8)
    assert info_nce(same, same, SCALE).item() == pytest.approx(np.log(4))


def test_false_negatives_are_left_out_and_a_queue_adds(random):
    left, right, queue = unit(random, 4, 8), unit(random, 4, 8), unit(random, 5, 8)
    twins = torch.zeros(4, 4, dtype=torch.bool)
    twins[0, 1] = twins[1, 0] = True
    logits = np.exp(3.99) * left.numpy() @ right.numpy().T
    logits[0, 1] = logits[1, 0] = -np.inf
    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    assert info_nce(left, right, SCALE, twins).item() == pytest.approx(expected, abs=1e-9)
    logits = np.exp(3.99) * left.numpy() @ right.numpy().T
    wide = np.concatenate([logits, np.exp(3.99) * left.numpy() @ queue.numpy().T], axis=1)
    forth = -np.mean(np.diag(logits) - np.log(np.exp(wide).sum(axis=1)))
    expected = (forth + cross_entropy(logits.T)) / 2
    assert info_nce(left, right, SCALE, queue=queue).item() == pytest.approx(expected, abs=1e-9)


def test_the_loss_is_two_terms_with_their_own_scales(alignment, random):
    """methods.md 2: no third term; a photo without words is missing from the text term only."""
    vectors = tuple(unit(random, 5, 24) for _ in range(4))
    image_text, image_location, text, location = vectors
    has_text = torch.tensor([True, True, False, True, True])
    losses = alignment_loss(alignment, vectors, has_text)
    assert losses.text.item() == pytest.approx(by_hand(image_text[has_text], text[has_text]), rel=1e-5)
    assert losses.location.item() == pytest.approx(by_hand(image_location, location), rel=1e-5)
    assert losses.total.item() == pytest.approx(losses.text.item() + losses.location.item())
    silent = alignment_loss(alignment, vectors, torch.zeros(5, dtype=torch.bool))
    assert silent.text.item() == 0


def test_g3s_networks(alignment):
    """Two-layer heads with ReLU; initial scale exp(3.99) = 54.05; 13,648,131 parameters for d = 768, less G3's unused one."""
    wide = Alignment(768, 768)
    trainable = sum(p.numel() for p in wide.parameters() if p.requires_grad)
    assert trainable == 13_648_131 - 1
    assert wide.text_scale.exp().item() == pytest.approx(54.05, abs=0.01)
    features = torch.randn(3, 24)
    head = alignment.image_to_text
    expected = torch.relu(features @ head[0].weight.T + head[0].bias) @ head[2].weight.T + head[2].bias
    vectors = alignment.images(features)[0]
    assert torch.allclose(vectors, expected / expected.norm(dim=1, keepdim=True), atol=1e-6)


def test_gradients_reach_all_that_is_trained_and_nothing_else(alignment):
    points = torch.tensor([[48.8, 2.3], [-33.9, 151.2], [40.7, -74.0]])
    vectors = alignment(torch.randn(3, 24), torch.randn(3, 10), points)
    alignment_loss(alignment, vectors, torch.ones(3, dtype=torch.bool)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in alignment.parameters())
    names = dict(alignment.named_parameters())
    assert not any("frequencies" in name for name in names)
    assert any("frequencies" in name for name, _ in alignment.named_buffers())


def test_locations_start_from_geoclips_weights_and_see_mercator(alignment):
    own, clips = alignment.location_encoder.state_dict(), LocationEncoder.geoclip().state_dict()
    assert all(torch.equal(own[name], clips[name]) for name in clips)
    point = torch.tensor([[40.7128, -74.006]])
    through = sum(capsule(mercator(point)) for capsule in LocationEncoder.geoclip().capsules)
    assert torch.allclose(alignment.location_encoder(point), through, atol=1e-6)
    assert torch.isfinite(alignment.locations(torch.tensor([[90.0, 180.0], [-90.0, -180.0]]))).all()


def test_same_place():
    points = torch.tensor([[48.85, 2.35], [48.86, 2.36], [40.7, -74.0], [0.0, 180.0], [0.0, -179.99]])
    near = same_place(points, 25)
    assert torch.nonzero(near).tolist() == [[0, 1], [1, 0], [3, 4], [4, 3]]


def test_parts_of_a_vector(random):
    photo, other = random.normal(size=(1, 12)).astype(np.float32), random.normal(size=(1, 12)).astype(np.float32)
    products = {
        part: float(part_of(photo, part)[0] @ part_of(other, part)[0]) for part in ("image", "text", "location")
    }
    assert (photo @ other.T).item() == pytest.approx(sum(products.values()), rel=1e-4)
    some = keep_parts(photo, ("image", "location"))
    assert (some @ other.T).item() == pytest.approx(products["image"] + products["location"], rel=1e-4)
    assert part_of(photo, "text").any()


@pytest.mark.parametrize("model", ["ViT-L-14-quickgelu@openai", "ViT-B-32@laion2b_s34b_b79k"])
def test_it_names_the_tower_that_it_was_trained_on(tmp_path, model):
    """As its card has it; an alignment starts from any tower, whatever GeoCLIP's head wants."""
    start = image_model("geoclip", model)
    assert (start.tower, start.geoclip_head) == (model, False)
    card = {"encoder": "geoclip", "model": start.tower, "similarity_scale": 54.0}
    (tmp_path / ALIGNMENT).write_text(json.dumps(card))
    trained = encoder_config(str(tmp_path))
    assert (trained.model, trained.pretrained) == tuple(model.split("@"))
    assert trained.crop == "transformers"
    assert image_model("geoclip").tower == "ViT-L-14-quickgelu@openai"


def test_a_folder_that_does_not_fit(tmp_path, alignment):
    save_file(alignment.state_dict(), tmp_path / WEIGHTS)
    card = {"encoder": "lite", "model": "pypi:x", "image_dimension": 24, "text_dimension": 10, "similarity_scale": 54.0}
    card |= {"training": {"projection": "mercator"}}
    (tmp_path / ALIGNMENT).write_text(json.dumps(card))
    loaded = load_alignment(Folder(str(tmp_path)))
    assert torch.equal(loaded.text[0].weight, alignment.text[0].weight)
    assert not any(p.requires_grad for p in loaded.parameters())
    (tmp_path / ALIGNMENT).write_text(json.dumps(card | {"image_dimension": 32}))
    with pytest.raises(UsageError, match=r"--encoder .*alignment.safetensors does not fit alignment.json"):
        load_alignment(Folder(str(tmp_path)))
    with pytest.raises(UsageError, match=r"--encoder .*there is geoclip, siglip2, lite, and this is no folder"):
        encoder_config(str(tmp_path / "nowhere"))
