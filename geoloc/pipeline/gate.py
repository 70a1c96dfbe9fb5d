"""Training a gate, as its user starts it: two runs over photos of known place in, ``gate.json`` out.

It reads what the archive job wrote, runs no model, and needs no Ray.
"""

import logging

import numpy as np

from geoloc.errors import UsageError
from geoloc.estimate.gate import FILE, Gate, fit_gate
from geoloc.evaluation.datasets import read_truth
from geoloc.evaluation.matching import match
from geoloc.evaluation.reading import read_positions
from geoloc.geo.distance import geodesic_km, valid_coordinates
from geoloc.pipeline.calibration import examples, scale_and_settings
from geoloc.pipeline.job_options import GateOptions
from geoloc.settings import differences
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

LIGHT, HEAVY = "LIGHT_RUN", "HEAVY_RUN"


def train_gate(options: GateOptions) -> int:
    """Fit and write; returns the process's exit status. Raises UsageError where something is to be put right."""
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    scale, light = scale_and_settings(options.light, options.s3, LIGHT)
    _, heavy = scale_and_settings(options.heavy, options.s3, HEAVY)
    run = read_positions(options.light, "predictions", s3=options.s3, option=LIGHT)
    other = read_positions(options.heavy, "predictions", s3=options.s3, option=HEAVY)
    truth = read_truth(options.truth or options.light, None, options.columns, options.s3)
    table, light_km, rows = examples(run, truth, scale)
    row = match(other, truth).row[rows]
    there = (row >= 0) & valid_coordinates(other.lat[row], other.lon[row])
    rows, row = rows[there], row[there]
    heavy_km = geodesic_km(other.lat[row], other.lon[row], truth.lat[rows], truth.lon[rows])
    groups = truth.groups(rows)
    gate = fit_gate(
        table[there], light_km[there], heavy_km, _applies_to(options, light, heavy), scale, groups, options.seed
    )
    folder.write(FILE, gate.to_json())
    for line in _lines(gate):
        log.info("%s", line)
    log.info("%s/%s; use it: --heavy-gate %s --heavy-share 0.2", folder.uri, FILE, folder.uri)
    return 0


def _applies_to(options: GateOptions, light: dict, heavy: dict) -> dict:
    """The light run's settings, and the heavy ranker's weights; its own settings may change what it does, not for whom it is worth it."""
    rankers = heavy["scorers"][len(light["scorers"]) :]
    same = {name: value for name, value in heavy.items() if name in light} | {
        "scorers": heavy["scorers"][: len(light["scorers"])],
        "weights": {name: value for name, value in heavy["weights"].items() if name in light["weights"]},
    }
    if not rankers:
        raise UsageError(f"{HEAVY} {options.heavy}: has no ranker (its scorers: {', '.join(heavy['scorers'])})")
    if differing := differences(light, same):
        raise UsageError(f"{HEAVY} {options.heavy}: is not {options.light} with a ranker: {'; '.join(differing)}")
    if heavy[rankers[0]].get("gate"):
        raise UsageError(f"{HEAVY} {options.heavy}: ranked some photos alone; run it without --heavy-gate")
    return light | {"heavy": {name: heavy["weights"][name] for name in rankers}}


def _lines(gate: Gate) -> list[str]:
    """For people."""
    evidence = gate.evidence
    both = evidence["acc_25km"]
    lines = [
        f"On {evidence['photos']:,} photos that it was not fitted on, below 25 km: light {both['light']:.1f} %, heavy {both['heavy']:.1f} %"
    ]
    for share, found in evidence["acc_25km_by_share"].items():
        lines.append(
            f"{float(share):4.0%} ranked: {found['gate']:.1f} %; at random {found['random']:.1f}, by one who knows {found['oracle']:.1f}"
        )
    gained = int(np.sum(gate.gained))
    return [*lines, f"The ranker alone was right about {gained:,} of them"]
