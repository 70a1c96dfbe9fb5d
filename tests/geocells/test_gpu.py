"""Cells on a pretended GPU."""

import numpy as np
import pytest
import torch

from geoloc.geocells.model import Geocells
from geoloc.geocells.search import GeocellSearcher
from tests.geocells.test_model import LINEAGE
from tests.pretend_gpu import pretended


@pytest.mark.parametrize("combine", ["product", "sum", "literal", "finest"])
def test_places_are_as_probable_as_on_the_cpu(random, combine):
    torch.manual_seed(0)
    model = Geocells(8, [2, 3], width=4).eval().requires_grad_(False)
    vectors = random.normal(size=(5, 8)).astype(np.float32)
    expected = GeocellSearcher(model, LINEAGE, combine, 1.0).search(vectors, 2)
    with pretended() as log:
        searcher = GeocellSearcher(model.to("cuda"), LINEAGE.to("cuda"), combine, 1.0)
        log.clear()
        found = searcher.search(vectors, 2)
        assert len(log.waits) == 2  # what was found, and where
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert (found[1] == expected[1]).all()
