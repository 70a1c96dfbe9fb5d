"""On a pretended GPU: the CPU's vectors, and how often the CPU and the device wait for each other."""

import numpy as np
import pytest
import torch

from geoloc.encoders.config import encoder_config
from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.location import LocationEncoder
from tests.pretend_gpu import pretended


def test_a_batch_of_photos_is_one_copy_up_and_one_down(random):
    pixels = random.integers(0, 255, (5, 224, 224, 3), dtype=np.uint8)
    expected = ImageEncoder(encoder_config("lite")).encode(pixels)
    with pretended() as log:
        encoder = ImageEncoder(encoder_config("lite"), "cuda")
        log.clear()
        found = encoder.encode(pixels)
        assert (len(log.copies), log.waiting_copies(), len(log.waits)) == (2, [], 1)
    assert (found * expected).sum(axis=1) == pytest.approx(1, abs=5e-3)  # in bfloat16


def test_places_are_encoded_where_the_weights_are():
    at = np.array([48.85, -33.86]), np.array([2.35, 151.21])
    expected = LocationEncoder.geoclip().encode(*at)
    with pretended() as log:
        encoder = LocationEncoder.geoclip().to("cuda")
        log.clear()
        assert encoder.encode(*at) == pytest.approx(expected, abs=1e-5)
        assert len(log.waits) == 1


def test_what_a_gpu_would_not_do_is_not_done():
    with pretended():
        tensor = torch.ones(2, device="cuda")
        with pytest.raises(RuntimeError, match="same device"):
            tensor + torch.ones(2)
        with pytest.raises(TypeError, match="can't convert"):
            tensor.numpy()
        with pytest.raises(RuntimeError, match="cannot pin"):
            tensor.pin_memory()
