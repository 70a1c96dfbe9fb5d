import numpy as np
import open_clip
import pytest
import torch

from geoloc.encoders.config import EncoderConfig, lite
from geoloc.encoders.text import HashedWords, TextEncoder, place_sentence, text_encoder
from geoloc.errors import UsageError
from geoloc.toy.models import write_clip


def test_g3s_sentence():
    place = {"city": "Lyon", "region": "Auvergne-Rhône-Alpes", "country": "France", "country_code": "FR"}
    assert place_sentence(place) == "A street view photo taken in Lyon, Auvergne-Rhône-Alpes, France"
    assert place_sentence(place | {"region": None}) == "A street view photo taken in Lyon, France"
    assert place_sentence({"city": None, "region": None, "country": None}) is None
    assert place_sentence(None) is None


def test_a_text_tower_is_open_clips_own(tmp_path):
    name = write_clip(tmp_path / "clip", dimension=32)
    encoder = TextEncoder(EncoderConfig("tiny", name, None, False, 40.0))
    sentences = ["A street view photo taken in Lyon, France", "A street view photo taken in " + "Lyon, " * 200]
    vectors = encoder.encode(sentences, batch=1)
    model = open_clip.create_model(name).eval()
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer(name)(sentences))
    assert np.allclose(vectors, expected.numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="cannot load the text model"):
        TextEncoder(EncoderConfig("tiny", f"local-dir:{tmp_path}/nowhere", None, False, 40.0))


def test_hashed_words_know_which_words_are_the_same():
    encoder = text_encoder(lite())
    assert isinstance(encoder, HashedWords)
    lyon, paris, accra = encoder.encode(["in Lyon, France", "In Paris (France)", "in Accra, Ghana"])
    assert encoder.encode(["in Lyon, France"])[0] == pytest.approx(lyon)
    assert lyon @ paris > lyon @ accra
    assert encoder.encode(["", "…"]).tolist() == [[0.0] * 256] * 2
