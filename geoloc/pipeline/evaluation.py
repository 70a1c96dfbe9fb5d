"""The evaluation as its user starts it: predictions, or photos and models, in; tables and a report out.

Judging files needs no Ray, so nothing here imports it; locating photos does, and imports it then.
"""

import io
import logging
from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from geoloc.context.hiding import compare as compare_hidden
from geoloc.context.reading import read_known
from geoloc.errors import UsageError
from geoloc.evaluation.datasets import find, read_retrieved, read_truth, recognise
from geoloc.evaluation.evaluation import Evaluation, evaluate
from geoloc.evaluation.metrics import ACCURACIES
from geoloc.evaluation.positions import Positions
from geoloc.evaluation.reading import read_positions
from geoloc.evaluation.report import write_report
from geoloc.evaluation.tables import candidates_csv, differences_csv, table_csv, table_md, write_results
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.pipeline.job_options import EvaluationOptions
from geoloc.storage import Folder

log = logging.getLogger("geoloc")


def evaluate_runs(options: EvaluationOptions) -> int:
    """Judge, write and tell; returns the process's exit status. Raises UsageError where something is to be put right."""
    options.protocol.check()
    if options.hide is not None:
        return _evaluate_together(options)
    recipes = options.locate.check(options.s3) if options.locate.images else []
    needed = "TRUTH and OUTPUT" if options.locate.images else "PREDICTIONS, TRUTH and OUTPUT (or --images)"
    if len(options.paths) < (2 if options.locate.images else 3):
        raise UsageError(f"{' '.join(options.paths) or 'no files'}: give {needed}, in this order")
    *named, truth_path, output = options.paths
    folder = Folder(output, options.s3)
    folder.check_writable("OUTPUT")
    dataset = find(options.dataset) if options.dataset else recognise(truth_path)
    truth = read_truth(truth_path, dataset, options.truth, options.s3)
    runs = _read_runs(named, truth, options)
    if recipes:
        from geoloc.pipeline.comparison import compare

        for recipe in recipes:
            if recipe.name in runs:
                raise UsageError(
                    f"PREDICTIONS: a run named {recipe.name!r} is there already, as a recipe; say OTHER=FILE"
                )
        runs |= compare(options.locate, recipes, truth, folder / "located")
    write_evaluation(folder, evaluate(runs, truth, options.protocol, dataset))
    return 0


def _evaluate_together(options: EvaluationOptions) -> int:
    if len(options.paths) != 2:
        raise UsageError(f"--hide: give a TABLE or RUN, and OUTPUT, not {' '.join(options.paths) or 'nothing'}")
    source, output = options.paths
    folder = Folder(output, options.s3)
    folder.check_writable("OUTPUT")
    collection, uri = read_known(source, options.s3)
    runs, truth = compare_hidden(collection, uri, options.hide, options.hide_by, options.repeats)
    known = int((~np.isnan(collection.known[:, 0])).sum())
    log.info(
        "Hidden: %.0f %% of %s known places, by %s, drawn %s times; intervals are by chain",
        100 * options.hide,
        f"{known:,}",
        options.hide_by,
        options.repeats,
    )
    write_evaluation(folder, evaluate(runs, truth, options.protocol, None))
    return 0


def _read_runs(named: list[str], truth: Positions, options: EvaluationOptions) -> dict[str, Positions]:
    runs: dict[str, Positions] = {}
    for name, path in _names_and_paths(named):
        if name in runs:
            raise UsageError(f"PREDICTIONS {path}: a run named {name!r} is there already; say OTHER={path}")
        if path.endswith(".npy"):
            runs[name] = read_retrieved(path, options.database, truth, options.s3)
        else:
            runs[name] = read_positions(path, "predictions", options.predictions, options.s3)
    return runs


def _names_and_paths(arguments: list[str]) -> list[tuple[str, str]]:
    """Runs that are not named are called like their file, with its folder where two files are called the same."""
    found = []
    for argument in arguments:
        name, equals, path = argument.partition("=")
        found.append((name, path) if equals and "/" not in name else (None, argument))
    stems = Counter(PurePosixPath(path.rstrip("/")).stem for name, path in found if name is None)
    return [(name or _called(PurePosixPath(path.rstrip("/")), stems), path) for name, path in found]


def _called(path: PurePosixPath, stems: Counter) -> str:
    return path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"


def write_evaluation(folder: Folder, evaluation: Evaluation) -> None:
    """Write the tables and the report, and say the main figures."""
    folder.write("table.csv", table_csv(evaluation).encode())
    folder.write("table.md", table_md(evaluation).encode())
    if len(evaluation.runs) > 1:
        folder.write("differences.csv", differences_csv(evaluation).encode())
    if any(run.candidates for run in evaluation.runs):
        folder.write("candidates.csv", candidates_csv(evaluation).encode())
    sink = io.BytesIO()
    write_results(evaluation, sink)
    folder.write("results.parquet", sink.getvalue())
    folder.write("report.html", write_report(evaluation))
    for note in evaluation.notes:
        log.warning("note: %s", note)
    log.info("%s", evaluation.protocol.describe())
    for run in evaluation.runs:
        figures = run.measured.figures
        shares = ", ".join(
            f"{t} km {figures[name].value:.1f} %" for t, name in zip(THRESHOLDS_KM, ACCURACIES, strict=True)
        )
        log.info(
            "%s: n %s, missing %s; %s; median %s km",
            run.name,
            f"{run.measured.n:,}",
            f"{run.measured.missing:,}",
            shares,
            f"{figures['median_km'].value:,.1f}",
        )
    log.info("Tables and report.html in %s", folder.uri)
