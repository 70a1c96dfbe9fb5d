import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2VLConfig

from geoloc.errors import UsageError
from geoloc.ranking.georanker import (
    GeoRankerModel,
    check_ranker,
    load_base,
    save_adapter,
    with_adapter,
    with_new_adapter,
)
from geoloc.ranking.options import ADAPTER, CONFIG, RankerOptions
from geoloc.ranking.prompt import PromptPlace, messages
from geoloc.storage import Folder
from geoloc.toy.models import write_clip, write_qwen2_vl
from tests.conftest import opinionated

LAYERS, WIDTH, KEY_WIDTH, RANK = 2, 64, 32, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(write_qwen2_vl(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def inputs(folder):
    """Two pairs of one photo, one of them with a generated candidate."""
    processor = AutoProcessor.from_pretrained(folder)
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (56, 84, 3), np.uint8))
    negatives = [PromptPlace(1.5, 2.5, "Elsewhere")]
    asked = [
        messages("georanker", PromptPlace(48.85, 2.35, "Paris France"), negatives),
        messages("georanker", PromptPlace(40.7, -74.0), negatives, has_image=False),
    ]
    texts = processor.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    shown = [[picture, picture], [picture]]
    together = processor(text=texts, images=shown, padding=True, padding_side="left", return_tensors="pt")
    alone = [processor(text=[t], images=[s], return_tensors="pt") for t, s in zip(texts, shown, strict=True)]
    return together, alone


def test_scores_are_of_the_last_position(folder, inputs):
    together, alone = inputs
    ranker = load_base(folder).eval()
    with torch.inference_mode():
        scores = ranker.pairs(**together)
        assert scores.shape == (2,)
        assert [ranker.pairs(**one).item() for one in alone] == pytest.approx(scores.tolist(), abs=1e-4)
        states = ranker.model(**alone[0]).last_hidden_state
        assert scores[0].item() == pytest.approx(float(states[0, -1] @ ranker.value_head.weight[0]), abs=1e-4)
    assert ranker.value_head.bias is None
    assert not any("lm_head" in name for name, _ in ranker.named_parameters())


def test_lora_is_on_the_language_models_attention_alone(folder):
    model = with_new_adapter(load_base(folder))
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    lora = {name: count for name, count in trained.items() if "lora" in name}
    assert sum(lora.values()) == LAYERS * (RANK * (WIDTH + WIDTH) + 2 * RANK * (WIDTH + KEY_WIDTH))
    assert len(lora) == LAYERS * 3 * 2
    assert all("language_model" in name and "visual" not in name for name in lora)
    assert sum(trained.values()) - sum(lora.values()) == WIDTH


class Wide(torch.nn.Module):
    """As wide as Qwen2-VL-7B, and nothing else."""

    dtype, device = torch.float32, torch.device("cpu")
    config = Qwen2VLConfig(text_config={"hidden_size": 3584})

    def __init__(self) -> None:
        super().__init__()
        self.language_model = torch.nn.Linear(1, 1)


def test_scores_of_a_half_precision_model_are_told_apart_finely(folder):
    """Two hidden states whose scores bfloat16 would round to one."""
    head = load_base(folder, torch.bfloat16).value_head
    with torch.no_grad():
        head.weight.zero_()[0, :2] = torch.tensor([100.0, 0.125])
    states = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.bfloat16)
    padded = torch.nn.functional.pad(states, (0, head.weight.shape[1] - 2))
    assert head(padded)[:, 0].tolist() == [100.0, 100.125]


def test_the_value_head_starts_as_released():
    """``nn.Linear(hidden_size, 1, bias=False)``, then normal with a standard deviation of 1 / (hidden_size + 1)."""
    torch.manual_seed(3)
    ours = GeoRankerModel(Wide()).value_head.weight
    torch.manual_seed(3)
    Wide()
    released = torch.nn.Linear(3584, 1, bias=False).weight.data.normal_(mean=0.0, std=1 / (3584 + 1))
    assert torch.equal(ours, released)
    assert ours.std().item() == pytest.approx(0.000279, rel=0.05)


def test_a_base_with_missing_tensors_is_refused(folder, tmp_path):
    """Transformers would fill in random numbers. A language-model head, which nothing here uses, may be missing."""
    shutil.copytree(folder, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    whole = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head")}
    save_file(whole, file, {"format": "pt"})
    load_base(str(tmp_path / "base"))
    lost = next(name for name in whole if "layers.1.self_attn.q_proj.weight" in name)
    save_file({name: tensor for name, tensor in whole.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(
        UsageError, match=r"--ranker-model .*base: 1 of its tensors are lacking, such as .*q_proj\.weight"
    ):
        load_base(str(tmp_path / "base"))


def test_an_adapter_of_another_base_is_refused(folder, tmp_path):
    """Of the same shapes: with other weights, of another family, or with another name on the hub."""
    save_adapter(opinionated(folder), tmp_path / "adapter")
    adapter = Folder(str(tmp_path / "adapter"))
    other = str(write_qwen2_vl(tmp_path / "other", seed=1))
    with pytest.raises(
        UsageError, match=r"--ranker-adapter .*: was trained on another base model .* than --ranker-model"
    ):
        with_adapter(load_base(other), adapter)
    with_adapter(load_base(folder, torch.bfloat16), adapter)
    options = RankerOptions(folder, adapter)
    assert check_ranker(options).fingerprint != check_ranker(RankerOptions(other, adapter)).fingerprint
    config = json.loads(adapter.read(CONFIG))
    for name, refused in (
        ("Qwen/Qwen2-VL-7B-Instruct", False),
        ("Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("/models/qwen2_5_vl", True),
        ("somebody/finetuned", False),
        (None, False),
    ):
        adapter.write(CONFIG, json.dumps(config | {"base_model_name_or_path": name}).encode())
        if refused:
            with pytest.raises(UsageError, match=f"was trained on {name}, and --ranker-model .* is another model"):
                check_ranker(options)
        else:
            check_ranker(options)


def test_other_weights_of_the_same_size_are_another_ranker(folder, tmp_path):
    adapter = tmp_path / "adapter"
    save_adapter(opinionated(folder), adapter)
    shutil.copytree(folder, tmp_path / "base")
    options = RankerOptions(str(tmp_path / "base"), Folder(str(adapter)))
    before = check_ranker(options)
    file = tmp_path / "base" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    assert check_ranker(options) != before


def test_an_adapter_is_read_back_in_both_layouts(folder, inputs, tmp_path):
    model = opinionated(folder)
    save_adapter(model, tmp_path / "new")
    tensors = load_file(tmp_path / "new" / ADAPTER)
    assert "base_model.model.value_head.weight" in tensors
    assert "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight" in tensors
    save_adapter(model, tmp_path / "old")
    save_file({k.replace(".language_model.", "."): v for k, v in tensors.items()}, tmp_path / "old" / ADAPTER)
    with torch.inference_mode():
        expected = model.pairs(**inputs[0])
        for name in ("new", "old"):
            loaded = with_adapter(load_base(folder), Folder(str(tmp_path / name)))
            assert torch.allclose(loaded.pairs(**inputs[0]), expected, atol=1e-5)
            assert not any(p.requires_grad for p in loaded.parameters())
        assert not torch.allclose(load_base(folder).pairs(**inputs[0]), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("base_model.model.value_head.weight"), "1 tensors are lacking, such as .*value_head"),
        (
            lambda t: t.update({"base_model.model.other.weight": torch.zeros(1)}),
            "1 tensors have no place, such as .*other",
        ),
        (lambda t: t.update({k: v[:1] for k, v in t.items() if "q_proj.lora_A" in k}), "2 tensors have another shape"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(folder, tmp_path, damage, message):
    save_adapter(opinionated(folder), tmp_path)
    tensors = load_file(tmp_path / ADAPTER)
    damage(tensors)
    save_file(tensors, tmp_path / ADAPTER)
    with pytest.raises(UsageError, match=f"--ranker-adapter .*: {message}"):
        with_adapter(load_base(folder), Folder(str(tmp_path)))


def test_folders_that_hold_no_such_thing(folder, tmp_path):
    with pytest.raises(UsageError, match="--ranker-model /nowhere: cannot load it"):
        load_base("/nowhere")
    write_clip(tmp_path / "clip")
    with pytest.raises(UsageError, match=r"--ranker-model .*clip: cannot load it"):
        load_base(str(tmp_path / "clip"))
    asking = tmp_path / "asking"
    asking.mkdir()
    remote = {
        "model_type": "stranger",
        "auto_map": {"AutoConfig": "its.Config", "AutoModelForImageTextToText": "its.Model"},
    }
    (asking / "config.json").write_text(json.dumps(remote))
    (asking / "its.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match=r"--ranker-model .*asking: cannot load it"):
        load_base(str(asking))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="--ranker-adapter /nowhere: cannot read it"):
        with_adapter(load_base(folder), Folder("/nowhere"))
