"""What an evaluation leaves on disk: ``table.csv``, ``differences.csv``, ``candidates.csv``, ``table.md`` and ``results.parquet``."""

import csv
import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.evaluation.evaluation import Evaluation
from geoloc.evaluation.metrics import ACCURACIES, Figure
from geoloc.evaluation.placing import LEVELS
from geoloc.evaluation.published import PROTOCOLS, Published, published
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.schema import CONFIDENCES

HEADLINE = [*ACCURACIES, "median_km", "mean_km"]
FIGURES = [*HEADLINE, "geoguessr", *(f"{level}_acc" for level in LEVELS)]
_ROWS = 250_000


def table_csv(evaluation: Evaluation) -> str:
    """A row a run: figures, then the ends of their 95 % intervals, then what else is known, and the protocol."""
    rows = []
    for run in evaluation.runs:
        figures = run.measured.figures
        row = {"run": run.name, "n": run.measured.n, "missing": run.measured.missing}
        row |= {name: round(figures[name].value, 4) for name in FIGURES}
        row |= _intervals(figures)
        row |= {"coverage": _percent(run.coverage), "calibrated": run.calibrated}
        row |= {f"ece_{t}km": round(curve.error, 4) for t, curve in run.reliability.items()}
        if run.candidates:
            row |= {"nearest_first": round(run.candidates.nearest_first, 2), "pairs": round(run.candidates.pairs, 2)}
        row |= {"distance": evaluation.protocol.distance, "rule": evaluation.protocol.sign, "truth": evaluation.truth}
        rows.append(row)
    return _csv(rows)


def differences_csv(evaluation: Evaluation) -> str:
    """A row for every run but the first: its figures minus the first's on the same photos, with 95 % intervals."""
    first = evaluation.runs[0].name
    rows = []
    for run in evaluation.runs[1:]:
        figures = run.measured.against
        row = {"run": run.name, "against": first, "n": run.measured.n}
        rows.append(row | {name: round(figures[name].value, 4) for name in FIGURES} | _intervals(figures))
    return _csv(rows)


def candidates_csv(evaluation: Evaluation) -> str:
    """A row for every run with candidates and every k: recall@k by threshold, percent; the last is the oracle."""
    return _csv(
        [
            {"run": run.name, "k": k} | {f"recall_{t}km": round(share, 4) for t, share in shares.items()}
            for run in evaluation.runs
            if run.candidates
            for k, shares in run.candidates.recall.items()
        ]
    )


def table_md(evaluation: Evaluation) -> str:
    """For a paper or a pull request: the runs with intervals, then what is published."""
    lines = [f"{evaluation.protocol.describe()}; 95 % bootstrap intervals{_by(evaluation)}.", ""]
    head = ["run", "n", "missing", *(f"{t} km" for t in THRESHOLDS_KM), "median km", "mean km"]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in evaluation.runs:
        figures = [with_interval(run.measured.figures[name]) for name in HEADLINE]
        lines.append("| " + " | ".join([run.name, str(run.measured.n), str(run.measured.missing), *figures]) + " |")
    for row in reference_rows(evaluation):
        figures = ["" if figure is None else f"{figure:g}" for figure in row.accuracy.values()]
        name = f"{row.method} ({row.source}{'; ' + row.note if row.note else ''})"
        lines.append("| " + " | ".join([name, "", "", *figures, "", ""]) + " |")
    lines += ["", *(f"* {note}" for note in evaluation.notes)]
    return "\n".join(lines).rstrip() + "\n"


def reference_rows(evaluation: Evaluation) -> list[Published]:
    """What is published on the benchmark, where the truth is one."""
    return published(evaluation.dataset.name) if evaluation.dataset else []


def reference_protocols(rows: list[Published]) -> list[str]:
    papers = dict.fromkeys(row.source.split(",")[0] for row in rows)
    return [f"{paper}: {PROTOCOLS[paper]}" for paper in papers]


def write_results(evaluation: Evaluation, sink: pa.NativeFile | io.BytesIO) -> None:
    """Parquet with a row for every run and photo."""
    writer = None
    for table in _results(evaluation):
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()


def _results(evaluation: Evaluation) -> Iterator[pa.Table]:
    for run in evaluation.runs:
        for start in range(0, len(evaluation.ids), _ROWS):
            rows = slice(start, start + _ROWS)
            length = len(evaluation.ids[rows])
            columns = {
                "run": pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int32)), pa.array([run.name])),
                "id": evaluation.ids[rows],
                "true_lat": evaluation.lat[rows],
                "true_lon": evaluation.lon[rows],
                "lat": run.lat[rows],
                "lon": run.lon[rows],
                "error_km": np.where(np.isfinite(run.km[rows]), run.km[rows], np.nan),
                "country": evaluation.places.country[rows],
                "continent": evaluation.places.continent[rows],
            }
            for threshold, name in CONFIDENCES.items():
                columns[name] = _or_nan(run.confidence.get(threshold) if run.calibrated else None, rows, length)
            columns["radius_km"] = _or_nan(run.radius_km, rows, length)
            yield pa.table(
                {
                    name: pa.array(values, from_pandas=True) if isinstance(values, np.ndarray) else values
                    for name, values in columns.items()
                }
            )


def _or_nan(values: np.ndarray | None, rows: slice, length: int) -> np.ndarray:
    return np.full(length, np.nan) if values is None else values[rows].astype(np.float64)


def with_interval(figure: Figure) -> str:
    """``34.2 (31.0–37.5)``."""
    value, low, high = (round(number, 1) for number in (figure.value, figure.low, figure.high))
    return f"{value:,} ({low:,}–{high:,})"


def _intervals(figures: dict[str, Figure]) -> dict[str, float]:
    return {f"{name}_{end}": round(getattr(figures[name], end), 4) for name in FIGURES for end in ("low", "high")}


def _by(evaluation: Evaluation) -> str:
    return f" over {evaluation.authors:,} authors" if evaluation.authors else ""


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _csv(rows: list[dict]) -> str:
    """Columns are those of any row, in order; what a row lacks, and NaN, are empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)
    return text.getvalue()
