import io
import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from geoloc.encoders.config import GEOCLIP_SCALE, encoder_config, geoclip, lite
from geoloc.encoders.geoclip import geoclip_gallery, geoclip_weights
from geoloc.encoders.image import ImageEncoder
from geoloc.errors import UsageError
from geoloc.photos.decode import PhotoFile
from geoloc.photos.views import Picture, View
from geoloc.toy.models import write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return ImageEncoder(lite())


def test_vectors_have_unit_length_whatever_the_batch(encoder, random):
    pixels = random.integers(0, 255, (37, 224, 224, 3), dtype=np.uint8)
    vectors = encoder.encode(pixels)
    assert vectors.shape == (37, encoder.dimension) == (37, 1280)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(encoder.encode(pixels[5:6]) - vectors[5]).max() < 1e-5


def test_an_open_clip_folder_encodes_as_open_clip_does(clip, random):
    """Against open_clip's own preprocessing and model, before GeoCLIP's head."""
    photo = Image.fromarray(random.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    encoder = ImageEncoder(encoder_config("lite", clip))
    model, _, transform = open_clip.create_model_and_transforms(clip)
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(photo)[None], normalize=True)[0].numpy()
    ours = encoder.encode(np.asarray(encoder.view.of(Picture.of(photo)))[None])[0]
    assert encoder.view == View(64)
    assert ours @ expected > 0.9999


def test_geoclips_head_gives_its_location_space(clip, random, toy_tower):
    """Against the package's own layers."""
    from geoclip.model.image_encoder import ImageEncoder as Peer

    peer = Peer.__new__(Peer)
    torch.nn.Module.__init__(peer)
    peer.mlp = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU(), torch.nn.Linear(768, 512))
    peer.mlp.load_state_dict(geoclip_weights("image_encoder_mlp_weights.pth"))
    pixels = random.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    headless = open_clip.create_model(clip).eval()
    mean, std = (np.array(v) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    images = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(peer.mlp(headless.encode_image(images)), dim=1).numpy()
    assert np.abs(ImageEncoder(encoder_config("geoclip", clip)).encode(pixels) - expected).max() < 1e-5


def test_lite_is_the_same_network_as_the_shared_folder(encoder, shared_data, random):
    other = ImageEncoder(encoder_config("lite", f"local-dir:{shared_data.parent}/models/lite-clip"))
    pixels = random.integers(0, 255, (4, 224, 224, 3), dtype=np.uint8)
    assert (encoder.encode(pixels) * other.encode(pixels)).sum(axis=1).min() > 0.9999


@pytest.mark.parametrize("shortest", [300, 700, 1400, 3000])
def test_scaled_decoding_keeps_the_embedding(encoder, shared_data, shortest):
    """Real photos, enlarged and with a sensor's grain, as they are decoded by default and whole."""
    random, cosines = np.random.default_rng(0), []
    for path in sorted((shared_data / "photos" / "im2gps3k").rglob("*.jpg"))[:6]:
        small = Image.open(path).convert("RGB")
        size = [round(side * shortest / min(small.size)) for side in small.size]
        pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32)
        pixels += random.normal(0, 3, (*pixels.shape[:2], 1))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        photo = PhotoFile(buffer.getvalue())
        views = [encoder.view.of(photo.picture(encoder.view.scale(*size), exact)) for exact in (False, True)]
        scaled, whole = encoder.encode(np.stack([np.asarray(view) for view in views]))
        cosines.append(scaled @ whole)
    assert np.mean(cosines) >= 0.999
    assert min(cosines) >= 0.995


def test_fingerprint_tells_weights_apart(tmp_path, clip):
    same, other = write_clip(tmp_path / "same"), write_clip(tmp_path / "other", seed=1)
    prints = [ImageEncoder(encoder_config("lite", model)).fingerprint for model in (clip, same, other)]
    assert prints[0] == prints[1] != prints[2]


def test_weights_that_cannot_be_had_are_named(tmp_path):
    for model in (f"local-dir:{tmp_path}/none", "ViT-L-14-quickgelu@openai", "no-such-model"):
        with pytest.raises(UsageError, match="cannot load the image model") as caught:
            ImageEncoder(encoder_config("lite", model))
        assert model.split("@")[0] in str(caught.value)
        assert "--model local-dir:" in str(caught.value)


def test_a_head_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UsageError, match="needs 768-d image features, this gives 32"):
        ImageEncoder(replace(geoclip(), model=write_clip(tmp_path / "small", dimension=32), pretrained=None))


@pytest.mark.parametrize("model", ["ViT-L-14-quickgelu@openai", "ViT-L-14@openai"])
def test_geoclips_tower_by_its_names(model):
    assert encoder_config("geoclip", model).pretrained == "openai"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("ViT-L-14@laion2b_s32b_b82k", "has other weights"),
        ("ViT-B-32@openai", "has other weights"),
        ("hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "has other weights"),
        ("toy", "is another: width 64, layers 2, patch_size 16, image_size 64, quick_gelu None"),
    ],
)
def test_geoclips_head_is_of_one_tower(clip, model, reason):
    with pytest.raises(
        UsageError, match=rf"--model .*: the head of --encoder geoclip was trained on OpenAI's .*{reason}"
    ):
        encoder_config("geoclip", clip if model == "toy" else model)


def test_a_folder_with_its_tower(tmp_path):
    """As open_clip itself describes that model."""
    config = {"model_cfg": open_clip.get_model_config("ViT-L-14-quickgelu"), "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert encoder_config("geoclip", f"local-dir:{tmp_path}").model == f"local-dir:{tmp_path}"
    config["model_cfg"]["quick_gelu"] = False
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="is another: quick_gelu False"):
        encoder_config("geoclip", f"local-dir:{tmp_path}")


def test_siglip2_is_a_tower_that_open_clip_knows():
    """1.1 billion parameters, so that nothing is loaded here."""
    config = encoder_config("siglip2")
    weights = open_clip.get_pretrained_cfg(config.model, config.pretrained)
    assert weights["hf_hub"] == "timm/ViT-gopt-16-SigLIP2-384/"
    shape = open_clip.get_model_config(config.model)
    assert (shape["embed_dim"], shape["vision_cfg"]["image_size"]) == (1536, 384)


def test_configs():
    with pytest.raises(UsageError, match="--encoder tiny: there is geoclip, siglip2, lite"):
        encoder_config("tiny")
    assert encoder_config("geoclip").pretrained == "openai"
    assert encoder_config("lite", "ViT-B-32@laion2b_s34b_b79k").pretrained == "laion2b_s34b_b79k"
    assert torch.tensor(GEOCLIP_SCALE).log() == pytest.approx(
        float(geoclip_weights("logit_scale_weights.pth")), abs=1e-6
    )


def test_gallery_names_each_place_once():
    lat, lon = geoclip_gallery()
    assert len(lat) == len(lon) == 94_123
    assert len(np.unique(np.stack([lat, lon]), axis=1).T) == 94_123
