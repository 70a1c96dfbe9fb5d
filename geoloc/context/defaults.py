"""What geoloc ships of context: learned from public sequences by ``python -m geoloc.context.learn``."""

import functools
import json
from dataclasses import replace
from importlib import resources

from geoloc.context.confidence import Confidence
from geoloc.context.emission import Emission
from geoloc.context.together import Model
from geoloc.context.transition import Transition

TEMPER = 0.88
"""Chosen, with the model's other settings, on im2gps3k_dev.csv."""
NUMBERS_A_MINUTE = 3.5
"""Decades between minutes and the numbers of Flickr's photos, whose gaps were learned from: some 3,000 came a minute."""


FILE_NUMBERS = 0.7
"""Decades between minutes and the numbers of a camera's files: five minutes pass from one to the next."""


@functools.cache
def for_numbers() -> Model:
    """For photos in the order of numbers, of any unit."""
    data = _parameters()
    transition = Transition(tuple(data["transition"]["intercepts"]), tuple(data["transition"]["slopes"]), temper=TEMPER)
    return Model(transition, Emission(tuple(data["emission"])))


@functools.cache
def for_minutes() -> Model:
    """For photos with times. Public sequences have none: their numbers stand for minutes, with a bound to speed."""
    model = for_numbers()
    timed = replace(model.transition.moved(NUMBERS_A_MINUTE), timed=True)
    return replace(model, transition=timed, smallest_gap=1 / 60, unknown_gap=1e6)


@functools.cache
def for_file_numbers() -> Model:
    """For photos in the order of a camera's file numbers."""
    model = for_numbers()
    return replace(model, transition=model.transition.moved(NUMBERS_A_MINUTE + FILE_NUMBERS), unknown_gap=1e5)


@functools.cache
def shipped_confidence() -> Confidence:
    return Confidence(tuple(tuple(tuple(curve) for curve in kind) for kind in _parameters()["confidence"]))


@functools.cache
def _parameters() -> dict:
    return json.loads(resources.files("geoloc.context").joinpath("parameters.json").read_text())
