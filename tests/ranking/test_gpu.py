"""The ranker on a pretended GPU: the CPU's scores and gradients, and how often the CPU and the device wait for each other."""

import numpy as np
import pytest
import torch

from geoloc.photos.views import AreaView
from geoloc.ranking import attention, georanker
from geoloc.ranking.attention import OF_PICTURES
from geoloc.ranking.georanker import GeoRankerModel, load_base, with_new_adapter
from geoloc.ranking.losses import multi_order_distance_loss
from geoloc.ranking.options import PromptOptions
from geoloc.ranking.packing import Pack
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.toy.models import write_qwen2_vl, write_qwen25_vl
from tests.pretend_gpu import one_kernel, pretended
from tests.ranking.test_packing import by_hand

VIEW = AreaView(28, 4 * 28 * 28, 16 * 28 * 28)
PROMPT = PromptOptions(min_pixels=VIEW.min_pixels, max_pixels=VIEW.max_pixels)
PHOTOS = 20
"""More than are encoded together."""


@pytest.fixture(scope="module", params=[write_qwen2_vl, write_qwen25_vl])
def folder(request, tmp_path_factory) -> str:
    return str(request.param(tmp_path_factory.mktemp("model")))


@pytest.fixture
def queries(random) -> list[RankQuery]:
    pictures = [random.integers(0, 255, (56 + 28 * (n % 3), 84, 3), np.uint8) for n in range(6)]
    places = [PromptPlace(*random.uniform(-80, 80, 2).tolist(), f"City {n}") for n in range(6)]
    shown = [RankCandidate(place, picture, n) for n, (place, picture) in enumerate(zip(places, pictures, strict=True))]
    return [RankQuery(pictures[n % 6], [shown[k] for k in random.integers(0, 6, 1 + n % 4)]) for n in range(PHOTOS)]


def on_gpu(model: GeoRankerModel, kernel: bool) -> GeoRankerModel:
    model.model.visual.config._attn_implementation = OF_PICTURES if kernel else "sdpa"
    return model.to("cuda")


@pytest.mark.parametrize("kernel", [True, False])
def test_the_device_is_waited_for_once(folder, queries, kernel, monkeypatch):
    model, same = load_base(folder).eval(), load_base(folder).eval()
    same.value_head.load_state_dict(model.value_head.state_dict())
    expected = GeoRankerScorer(model, folder, PROMPT).rank(queries)
    monkeypatch.setattr(attention, "varlen", one_kernel(by_hand))
    monkeypatch.setattr(georanker, "has_kernel", lambda *_: kernel)
    with pretended() as log:
        scorer = GeoRankerScorer(on_gpu(same, kernel), folder, PROMPT, "cuda")
        log.clear()
        found = scorer.rank(queries)
        assert log.waiting_copies() == []
        assert len([copy for copy in log.copies if copy.startswith("down")]) == 1
        assert len(log.copies) < PHOTOS  # a few for each time that pictures are encoded together
        if kernel:
            layers = same.model.config.text_config.num_hidden_layers, same.model.config.vision_config.depth
            assert len(log.waits) == 1
            assert log.kernels["by_hand"] == 2 * (
                3 * layers[0] + layers[1]
            )  # of two passes, whatever photos are in them
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_the_cpus(folder, queries, checkpointing):
    km = torch.rand(1, 4, dtype=torch.float64) * 1000
    gradients = []
    models = [load_base(folder, checkpointing=checkpointing) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    asked = queries[3:4]
    for device, model in zip(("cpu", "cuda"), models, strict=True):
        with pretended() if device == "cuda" else torch.enable_grad():
            torch.manual_seed(0)
            tuned = with_new_adapter(model, dropout=0.0).train()
            model.model.visual.config._attn_implementation = "sdpa"
            tuned = tuned.to(device)
            with torch.no_grad():
                [prompts] = GeoRankerScorer(model, folder, PROMPT, device).encode_queries(asked)
            scores = tuned(Pack.of([prompts], device))
            multi_order_distance_loss(scores[None], km.to(device)).backward()
            named = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
            assert all(p.grad is not None for p in named.values())
            gradients.append({name: p.grad.cpu() for name, p in named.items()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradients[1][name], gradient, atol=1e-5), name
    assert any(gradient.abs().max() > 1e-6 for name, gradient in gradients[0].items() if "lora_B" in name)
