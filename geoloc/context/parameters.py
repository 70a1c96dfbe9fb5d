"""Parameters of a collection as JSON."""

import json
from dataclasses import asdict

from geoloc.context.collection import Parameters
from geoloc.context.confidence import Confidence
from geoloc.context.emission import Emission
from geoloc.context.together import Model
from geoloc.context.transition import Transition


def to_json(parameters: Parameters) -> str:
    return json.dumps(asdict(parameters), sort_keys=True)


def of_json(text: str) -> Parameters:
    """The same, to the last digit."""
    record = json.loads(text)
    model, tuples = record["model"], lambda values: tuple(map(tuples, values)) if isinstance(values, list) else values
    transition = Transition(**{name: tuples(value) for name, value in model.pop("transition").items()})
    emission = Emission(tuples(model.pop("emission")["weights"]))
    rest = {name: tuples(value) for name, value in model.items()}
    own, others = (
        one and Confidence(tuples(one["coefficients"]), one["reached"])
        for one in (record["confidence"], record["confidence_of_others"])
    )
    return Parameters(Model(transition, emission, **rest), own, others)
