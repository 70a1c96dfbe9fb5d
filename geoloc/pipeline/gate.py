"""Training a gate, as its user starts it: two runs over photos of known place in, ``gate.json`` out.

It reads what the archive job wrote, runs no model, and needs no Ray.
"""

import logging

import numpy as np

from geoloc.errors import UsageError
from geoloc.estimate.gate import FILE, ONE_PHOTOGRAPHER, Gate, fit_gate
from geoloc.evaluation.datasets import read_truth
from geoloc.evaluation.reading import read_positions
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
    heavy_scale, heavy = scale_and_settings(options.heavy, options.s3, HEAVY)
    run = read_positions(options.light, "predictions", s3=options.s3, option=LIGHT)
    other = read_positions(options.heavy, "predictions", s3=options.s3, option=HEAVY)
    truth = read_truth(options.truth or options.light, None, options.columns, options.s3)
    applies_to = _applies_to(options, light, heavy)
    table, light_km, rows = examples(run, truth, scale)
    _, heavy_km, heavy_rows = examples(
        other, truth, heavy_scale
    )  # what the ranker says, whatever neighbours make of it
    rows, at, heavy_at = np.intersect1d(rows, heavy_rows, return_indices=True)
    gate = fit_gate(table[at], light_km[at], heavy_km[heavy_at], applies_to, scale, truth.groups(rows), options.seed)
    folder.write(FILE, gate.to_json())
    for line in _lines(gate):
        log.info("%s", line)
    log.info("%s/%s; use it: --heavy-gate %s --heavy-share 0.2", folder.uri, FILE, folder.uri)
    return 0


def _applies_to(options: GateOptions, light: dict, heavy: dict) -> dict:
    """The light run's settings, and the heavy rankers' weights and settings."""
    rankers = heavy["scorers"][len(light["scorers"]) :]
    same = {name: value for name, value in heavy.items() if name in light} | {
        "scorers": heavy["scorers"][: len(light["scorers"])],
        "weights": {name: value for name, value in heavy["weights"].items() if name in light["weights"]},
    }
    if not rankers:
        raise UsageError(f"{HEAVY} {options.heavy}: has no ranker (its scorers: {', '.join(heavy['scorers'])})")
    if differing := differences(light, same):
        raise UsageError(f"{HEAVY} {options.heavy}: is not {options.light} with a ranker: {'; '.join(differing)}")
    for option, name in (("--heavy-gate", "gate"), ("--skip-ranking-within-km", "skip_within_km")):
        if any(heavy[ranker].get(name) is not None for ranker in rankers):
            raise UsageError(f"{HEAVY} {options.heavy}: ranked some photos alone; run it without {option}")
    return light | {"heavy": {name: {"weights": heavy["weights"][name]} | heavy[name] for name in rankers}}


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
    if evidence["halves"] == ONE_PHOTOGRAPHER:
        lines.append(f"note: halves are of {ONE_PHOTOGRAPHER}: promises are for photos like those")
    return [*lines, f"The ranker alone was right about {gained:,} of them"]
