"""The calibration as its user starts it: a run whose photos' places are known in, ``calibration.json`` out.

It reads what the archive job wrote, runs no model, and needs no Ray.
"""

import json
import logging

import numpy as np

from geoloc.errors import UsageError
from geoloc.estimate.calibration import Calibration, features, fit
from geoloc.evaluation.datasets import read_truth
from geoloc.evaluation.matching import match
from geoloc.evaluation.positions import Positions
from geoloc.evaluation.reading import read_positions
from geoloc.geo.distance import geodesic_km, valid_coordinates
from geoloc.pipeline.job_options import CalibrationOptions
from geoloc.ranking.candidates import padded
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")

_ITSELF_SHARE = 0.05


def calibrate(options: CalibrationOptions) -> int:
    """Fit and write; returns the process's exit status. Raises UsageError where something is to be put right."""
    if not 0.5 <= options.coverage < 1:
        raise UsageError(f"--coverage {options.coverage}: must be from 0.5 to below 1")
    scale, settings = scale_and_settings(options.run, options.s3)
    run = read_positions(options.run, "predictions", s3=options.s3, option="RUN")
    if not run.has_candidates:
        raise UsageError(f"RUN {options.run}: its results have no candidates to tell confidence by")
    truth = read_truth(options.truth or options.run, None, options.columns, options.s3)
    table, km, rows = examples(run, truth, scale)
    itself = int((km < 1e-6).sum())
    if itself > _ITSELF_SHARE * len(km):
        log.warning(
            "note: %s of %s photos found themselves among the references, so the confidences will be too high for photos "
            "that are not in the index: calibrate with photos that are not",
            f"{itself:,}",
            f"{len(km):,}",
        )
    calibration = fit(table, km, settings, truth.groups(rows), options.coverage)
    folder = Folder(options.output or options.run, options.s3)
    folder.write("calibration.json", calibration.to_json())
    _log_evidence(calibration, folder)
    return 0


def scale_and_settings(run: str, s3: S3Options, option: str = "RUN") -> tuple[float, dict]:
    """Of a run's scores, and what decided its estimates. Raises UsageError."""
    try:
        record = json.loads(Folder(run, s3).read("run.json"))
        return float(record["score_scale"]), record["settings"]["method"]
    except FileNotFoundError as error:
        raise UsageError(f"{option} {run}: has no run.json; give the folder that geotag_archive.py wrote to") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{option} {run}: cannot read run.json ({type(error).__name__}: {error})") from error


def examples(run: Positions, truth: Positions, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, f) and errors (n,) km of the run's photos of known place, and their rows (n,) of the truth. Raises UsageError where
    there are none."""
    found = match(run, truth)
    placed = valid_coordinates(truth.lat, truth.lon) & (found.row >= 0)
    truth_row = np.full(len(run), -1)
    truth_row[found.row[placed]] = np.flatnonzero(placed)
    tables, errors, rows = [], [], []
    for start, lists in run.candidates():
        here = truth_row[start : start + len(lists)]
        lengths, fields = padded(lists, ["score", "similarity", "lat", "lon"])
        wanted = (here >= 0) & (lengths > 0)
        score, similarity, lat, lon = (values[wanted] for values in fields.values())
        best = np.argmax(score, axis=1) if score.shape[1] else np.zeros(len(score), int)
        each, true = np.arange(len(score)), here[wanted]
        if not len(true):
            continue
        tables.append(features(score, similarity, lat, lon, scale))
        errors.append(geodesic_km(lat[each, best], lon[each, best], truth.lat[true], truth.lon[true]))
        rows.append(true)
    if not rows:
        raise UsageError(
            f"RUN {run.source}: none of its located photos has a known place; locate geotagged photos too with "
            "geotag_archive.py --relocate, or give TRUTH"
        )
    return np.concatenate(tables), np.concatenate(errors), np.concatenate(rows)


def _log_evidence(calibration: Calibration, folder: Folder) -> None:
    evidence = calibration.evidence
    errors = ", ".join(
        f"{threshold} {error:.3f}" for threshold, error in evidence["expected_calibration_error"].items()
    )
    log.info(
        "Calibrated on %s photos; expected calibration error, cross-validated: %s", f"{evidence['photos']:,}", errors
    )
    log.info("%s/calibration.json; use it with geotag_archive.py --calibration", folder.uri)
