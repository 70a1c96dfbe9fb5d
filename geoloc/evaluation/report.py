"""``report.html``: an evaluation in one file that opens anywhere: tables, curves, reliability, a map of errors."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bokeh.models import ColorBar, ColumnDataSource, FactorRange, FixedTicker, HoverTool, LogColorMapper, Span
from bokeh.plotting import figure

from geoloc.evaluation.evaluation import Evaluation, RunResult
from geoloc.evaluation.placing import LEVELS
from geoloc.evaluation.tables import HEADLINE, reference_protocols, reference_rows, with_interval
from geoloc.geo.distance import THRESHOLDS_KM
from geoloc.geo.places import CONTINENTS
from geoloc.results.page import TOOLS, grid_cells, render, world_map

CURVE_KM = np.geomspace(0.1, 20_038, 240)
HISTOGRAM_KM = np.geomspace(0.1, 20_038, 61)
MAP_POINTS = 10_000
CELL_DEGREES = 1.0
MOST_COUNTRIES = 40
RADIUS_BINS = 10
BAR_THRESHOLDS_KM = (25, 750)
_ERROR_COLOURS = ("#0d0887", "#7e03a8", "#cc4778", "#f1844b", "#fcce25")
"""Matplotlib's plasma: lightness alone orders them, for those who tell red from green badly."""
_RUN_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Okabe and Ito's, for the same reason, without those that light or dark paper hides."""


def write_report(evaluation: Evaluation) -> bytes:
    """The page."""
    runs = evaluation.runs
    colours = {run.name: _RUN_COLOURS[number % len(_RUN_COLOURS)] for number, run in enumerate(runs)}
    figures = {"accuracy": _accuracy(runs, colours), "histogram": _histogram(runs, colours), "errors": _map(evaluation)}
    if any(run.reliability for run in runs):
        figures["reliability"] = _reliability(runs, colours)
    if any(run.radius_km is not None and np.isfinite(run.coverage) for run in runs):
        figures["coverage"] = _coverage(runs, colours)
    if any(run.candidates for run in runs):
        figures["recall"] = _recall(runs, colours)
    continents = _by_name(evaluation, evaluation.places.continent, None)
    figures["continents_plot"] = _continents(continents, runs, colours)
    references = reference_rows(evaluation)
    return render(
        "evaluation",
        "report_evaluation.html",
        figures,
        e=evaluation,
        headline=HEADLINE,
        levels=[f"{level}_acc" for level in LEVELS],
        thresholds=THRESHOLDS_KM,
        show=with_interval,
        references=references,
        protocols=reference_protocols(references),
        continents=continents,
        countries=_by_name(evaluation, evaluation.places.country, MOST_COUNTRIES),
        drawn=list(figures),
        uncalibrated=[run.name for run in runs if run.reliability and not run.calibrated],
        finite=np.isfinite,
    )


def _by_name(evaluation: Evaluation, names: pa.Array, most: int | None) -> list[dict]:
    """Accuracy of every run among the photos of each name, the name with most photos first."""
    coded = pc.fill_null(names, "(open sea)").dictionary_encode()
    which, found = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    counts = np.bincount(which, minlength=len(found))
    rows = []
    for number in np.argsort(-counts, kind="stable")[:most]:
        here = which == number
        shares = [
            [100 * float(evaluation.protocol.within(run.km[here], t).mean()) for t in THRESHOLDS_KM]
            for run in evaluation.runs
        ]
        rows.append({"name": CONTINENTS.get(found[number], found[number]), "n": int(counts[number]), "shares": shares})
    return rows


def _accuracy(runs: Sequence[RunResult], colours: dict) -> figure:
    plot = _plot(
        "accuracy against threshold",
        "threshold, km",
        "share of photos, %",
        x_axis_type="log",
        y_range=(0, 100),
    )
    for run in runs:
        share = 100 * np.searchsorted(np.sort(run.km), CURVE_KM, "left") / len(run.km)
        plot.line(CURVE_KM, share, color=colours[run.name], line_width=2, legend_label=run.name)
    _mark_thresholds(plot)
    plot.legend.location = "top_left"
    return plot


def _histogram(runs: Sequence[RunResult], colours: dict) -> figure:
    plot = _plot("errors", "error, km", "share of photos, %", x_axis_type="log")
    for run in runs:
        answered = np.clip(run.km[np.isfinite(run.km)], HISTOGRAM_KM[0], HISTOGRAM_KM[-1])
        share = 100 * np.histogram(answered, HISTOGRAM_KM)[0] / len(run.km)
        edges, tops = np.repeat(HISTOGRAM_KM, 2)[1:-1], np.repeat(share, 2)
        plot.varea(edges, 0, tops, color=colours[run.name], alpha=0.15)
        plot.line(edges, tops, color=colours[run.name], line_width=1.5, legend_label=run.name)
    _mark_thresholds(plot)
    plot.legend.location = "top_left"
    return plot


def _reliability(runs: Sequence[RunResult], colours: dict) -> tuple[figure, ...]:
    """One plot a threshold that any run has confidences for; a dot is as large as its bin has photos."""
    plots = []
    for threshold in sorted({t for run in runs for t in run.reliability}):
        plot = _plot(f"below {threshold} km", "confidence", "share that is right", x_range=(0, 1), y_range=(0, 1))
        plot.line([0, 1], [0, 1], color="#888888", line_dash="dashed")
        for run in runs:
            curve = run.reliability.get(threshold)
            if curve:
                size = 4 + 16 * np.sqrt(curve.count / curve.count.sum())
                label = f"{run.name}: ECE {curve.error:.3f}"
                plot.line(curve.confidence, curve.accuracy, color=colours[run.name], legend_label=label)
                plot.scatter(curve.confidence, curve.accuracy, size=size, color=colours[run.name], alpha=0.7)
        plot.legend.location = "top_left"
        plot.legend.label_text_font_size = "8pt"
        plots.append(plot)
    return tuple(plots)


def _coverage(runs: Sequence[RunResult], colours: dict) -> figure:
    """Share of the radii that hold the truth, for photos with small radii to large ones."""
    plot = _plot("radius", "radius, km", "share of radii that hold the truth, %", x_axis_type="log", y_range=(0, 103))
    for run in runs:
        if run.radius_km is None:
            continue
        known = np.isfinite(run.radius_km) & np.isfinite(run.km)
        radius, km = run.radius_km[known], run.km[known]
        bins = [b for b in np.array_split(np.argsort(radius, kind="stable"), RADIUS_BINS) if len(b)]
        x = [max(float(np.median(radius[b])), 0.1) for b in bins]
        y = [100 * float((km[b] <= radius[b]).mean()) for b in bins]
        plot.line(x, y, color=colours[run.name], line_width=1.5, legend_label=f"{run.name}: {100 * run.coverage:.1f} %")
        plot.scatter(x, y, color=colours[run.name], size=7)
    plot.legend.location = "bottom_right"
    return plot


def _recall(runs: Sequence[RunResult], colours: dict) -> figure:
    plot = _plot("recall of the candidates", "candidates", "share of photos with a right one, %", y_range=(0, 100))
    dashes = ("solid", "dashed", "dotted", "dotdash", "dashdot")
    for run in runs:
        if run.candidates:
            ks = list(run.candidates.recall)
            for threshold, dash in zip(THRESHOLDS_KM, dashes, strict=True):
                shares = [run.candidates.recall[k][threshold] for k in ks]
                label = f"{run.name}, {threshold} km"
                plot.line(ks, shares, color=colours[run.name], line_dash=dash, line_width=1.5, legend_label=label)
    plot.legend.location = "bottom_right"
    plot.legend.label_text_font_size = "8pt"
    if len(plot.legend.items) > 15:
        plot.legend.visible = False
    return plot


def _continents(rows: list[dict], runs: Sequence[RunResult], colours: dict) -> tuple[figure, ...]:
    plots = []
    for threshold in BAR_THRESHOLDS_KM:
        factors = [(row["name"], run.name) for row in rows for run in runs]
        at = THRESHOLDS_KM.index(threshold)
        plot = _plot(
            f"accuracy at {threshold} km by continent", "", "share of photos, %", x_range=FactorRange(*factors)
        )
        shares = [shares[at] for row in rows for shares in row["shares"]]
        plot.vbar(factors, top=shares, width=0.85, color=[colours[name] for _, name in factors])
        plot.y_range.start = 0
        plot.xaxis.major_label_text_font_size = "0pt"
        plot.xaxis.group_text_font_size = "8pt"
        plot.xaxis.group_label_orientation = 0.6
        plot.xgrid.visible = False
        plots.append(plot)
    return tuple(plots)


def _map(evaluation: Evaluation) -> figure:
    """Where the photos are, by the first run's error."""
    run = evaluation.runs[0]
    km = np.where(np.isfinite(run.km), np.maximum(run.km, 0.1), np.nan)
    plot = world_map(480)
    if len(km) > MAP_POINTS:
        cells = grid_cells(evaluation.lat, evaluation.lon, np.log(km), CELL_DEGREES)
        data = cells | {"km": np.exp(cells.pop("value"))}
        tips = [("photos", "@count"), ("typical error", "@km{0,0.[0]} km")]
    else:
        data = {"lat": evaluation.lat, "lon": evaluation.lon, "km": km, "size": np.full(len(km), 7)}
        data["id"] = evaluation.ids.to_pylist()
        tips = "<b>@id</b><br>error @km{0,0.[0]} km<br>@lat{0.0000}, @lon{0.0000}"
    mapper = LogColorMapper(_ERROR_COLOURS, low=1, high=10_000, nan_color="#222222")
    dots = plot.scatter(
        "lon",
        "lat",
        source=ColumnDataSource(data),
        size="size",
        color={"field": "km", "transform": mapper},
        line_color="white",
        line_width=0.4,
        alpha=0.85,
    )
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    plot.add_layout(ColorBar(color_mapper=mapper, title="error, km", height=14, width=220), "below")
    return plot


def _plot(title: str, x: str, y: str, **options: object) -> figure:
    plot = figure(
        title=title, x_axis_label=x, y_axis_label=y, height=340, sizing_mode="stretch_width", tools=TOOLS, **options
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


def _mark_thresholds(plot: figure) -> None:
    for threshold in THRESHOLDS_KM:
        plot.add_layout(Span(location=threshold, dimension="height", line_color="#888888", line_dash="dotted"))
    plot.xaxis.ticker = FixedTicker(ticks=[0.1, *THRESHOLDS_KM, 20_000])
