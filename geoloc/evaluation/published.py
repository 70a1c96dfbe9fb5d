"""What papers report on the public benchmarks, each figure with the table it was read from.

Papers disagree on each other's figures (Img2Loc, ISNs, GeoDecoder, PIGEON/PIGEOTTO), so a method can have several rows.
"""

import csv
from dataclasses import dataclass
from importlib import resources

from geoloc.geo.distance import THRESHOLDS_KM

PROTOCOLS = {
    "GeoRanker": "error < threshold, WGS84 geodesic (its code)",
    "GeoSURGE": "great-circle distance (its text; neither radius nor < or ≤ is stated)",
}
"""How each paper judged the figures in its own tables that it computed itself."""


@dataclass(frozen=True)
class Published:
    dataset: str
    kind: str
    """``method``, ``ranking`` (GeoRanker's ranking baselines) or ``ablation``."""
    method: str
    venue: str
    accuracy: dict[int, float | None]
    """Percent by threshold; None where the paper has none."""
    source: str
    """Paper and table."""
    note: str


def published(dataset: str) -> list[Published]:
    """The rows of a benchmark (a name in geoloc.evaluation.datasets), in the papers' order."""
    text = (resources.files("geoloc.evaluation") / "data" / "published.csv").read_text("utf-8")
    return [_row(row) for row in csv.DictReader(text.splitlines()) if row["dataset"] == dataset]


def _row(row: dict) -> Published:
    figures = {threshold: row[f"acc_{threshold}km"] for threshold in THRESHOLDS_KM}
    accuracy = {threshold: float(figure) if figure else None for threshold, figure in figures.items()}
    names = (row[name] for name in ("dataset", "kind", "method", "venue"))
    return Published(*names, accuracy, row["source"], row["note"])
