"""Training on a pretended GPU."""

import numpy as np
import pytest

from tests.pretend_gpu import pretended
from tests.training.test_steps import losses, trainee

STEPS = 3


def test_an_alignment_learns_as_on_the_cpu():
    expected = losses(trainee(), 0, STEPS)
    with pretended() as log:
        one = trainee(device="cuda")
        log.clear()
        found = losses(one, 0, STEPS)
        assert len([wait for wait in log.waits if "steps.py" in wait]) == 2 * STEPS, log.waits
    assert np.array(found) == pytest.approx(np.array(expected), rel=1e-3)
