import json

import peft
import pytest

from geoloc.errors import UsageError
from geoloc.ranking.georanker import load_base, with_adapter
from geoloc.ranking.hub import adapter_folder, is_on_hub
from geoloc.ranking.options import ADAPTER, CONFIG, PROMPT, RELEASED, prompt_of
from geoloc.storage import Folder, S3Options

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on this machine, which is all there is without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def publish(name: str, files: dict[str, bytes]) -> None:
        repository = tmp_path / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(REVISION)
        for file, data in files.items():
            path = repository / "snapshots" / REVISION / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return publish


@pytest.mark.parametrize("inside", ["", "checkpoints/"])
def test_an_adapter_of_the_hub(hub, toy_adapter, toy_base, inside):
    hub("Jia-py/GeoRanker", {f"{inside}{name}": (toy_adapter / name).read_bytes() for name in (CONFIG, ADAPTER)})
    found = adapter_folder("Jia-py/GeoRanker", S3Options())
    assert found.uri == f"Jia-py/GeoRanker@{REVISION}"
    assert json.loads(found.read(CONFIG))["r"] == 16
    assert prompt_of(found) == RELEASED
    ours, theirs = (
        peft.get_peft_model_state_dict(with_adapter(load_base(str(toy_base)), adapter))
        for adapter in (Folder(str(toy_adapter)), found)
    )
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_it_says_how_it_is_asked(hub, toy_adapter):
    hub("somebody/ranker", {name: (toy_adapter / name).read_bytes() for name in (CONFIG, ADAPTER, PROMPT)})
    assert prompt_of(adapter_folder("somebody/ranker", S3Options())) == prompt_of(Folder(str(toy_adapter)))


def test_one_that_cannot_be_had_is_fetched_by_hand(hub):
    with pytest.raises(
        UsageError, match=r"--ranker-adapter Jia-py/GeoRanker: is no folder here.*hf download Jia-py/GeoRanker"
    ):
        adapter_folder("Jia-py/GeoRanker", S3Options())


def test_folders_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "ranker").mkdir(parents=True)
    assert not is_on_hub("runs/ranker")
    assert adapter_folder("runs/ranker", S3Options()) == Folder(str(tmp_path / "runs" / "ranker"))
    assert adapter_folder("s3://bucket/ranker", S3Options()) == Folder("s3://bucket/ranker")
    assert not is_on_hub("/models/ranker")
    assert not is_on_hub("../ranker")
