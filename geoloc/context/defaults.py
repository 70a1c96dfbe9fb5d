"""What geoloc ships of context: learned from public sequences by ``python -m geoloc.context.learn``."""

import functools
import json
from dataclasses import replace
from importlib import resources

from geoloc.context.confidence import Confidence
from geoloc.context.emission import Emission
from geoloc.context.together import Model
from geoloc.context.transition import Transition

TEMPER = 0.9
"""Chosen, with the model's other settings, on im2gps3k_dev.csv."""
NUMBERS_A_MINUTE = 3.5
"""Decades between minutes and the numbers of Flickr's photos, whose gaps were learned from: some 3,000 came a minute."""


@functools.cache
def for_numbers() -> tuple[Model, Confidence]:
    """For photos in the order of numbers, of any unit."""
    data = json.loads(resources.files("geoloc.context").joinpath("parameters.json").read_text())
    transition = Transition(tuple(data["transition"]["intercepts"]), tuple(data["transition"]["slopes"]), temper=TEMPER)
    curves = tuple(tuple(tuple(curve) for curve in kind) for kind in data["confidence"])
    return Model(transition, Emission(tuple(data["emission"]))), Confidence(curves)


@functools.cache
def for_minutes() -> tuple[Model, Confidence]:
    """For photos with times. Public sequences have none: their numbers stand for minutes, with a bound to speed."""
    model, confidence = for_numbers()
    timed = replace(model.transition.moved(NUMBERS_A_MINUTE), timed=True)
    return replace(model, transition=timed, smallest_gap=1 / 60, unknown_gap=1e6), confidence
