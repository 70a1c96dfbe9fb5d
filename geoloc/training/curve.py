"""``report.html`` of a training run: its curves and its settings, in one file."""

from bokeh.plotting import figure

from geoloc.results.page import TOOLS, render

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#e69f00", "#009e73", "#888888"


def loss_page(history: list[dict], settings: dict) -> bytes:
    """Of an alignment: points with ``step``, ``epoch``, ``text`` and ``location``."""
    plot = _plot("loss (InfoNCE)")
    steps = [point["step"] for point in history]
    for name, colour in (("text", ORANGE), ("location", BLUE)):
        plot.line(steps, [point[name] for point in history], color=colour, line_width=2, legend_label=f"image–{name}")
    return render("training", "training.html", {"curve": plot}, history=history, settings=settings)


def ranker_page(history: list[dict], validations: list[dict], settings: dict) -> bytes:
    """Of a ranker: the points of RankerTrainee's ``history`` and ``validations``."""
    loss, accuracy = _plot("loss"), _plot("nearest candidate first, %")
    steps = [point["step"] for point in history]
    for name, label, colour in (
        ("loss", "multi-order distance loss", BLUE),
        ("first", "first order", ORANGE),
        ("second", "second order", GREEN),
    ):
        loss.line(steps, [point[name] for point in history], color=colour, line_width=2, legend_label=label)
    learned = [100 * point["nearest_first"] for point in history]
    accuracy.line(steps, learned, color=ORANGE, line_alpha=0.5, legend_label="photos it learns from")
    at = [point["step"] for point in validations]
    for name, label, colour, dash in (
        ("nearest_first", "held-out photos", BLUE, "solid"),
        ("nearest_first_retrieved", "held-out photos, as retrieved", GREY, "dashed"),
        ("nearest_first_by_chance", "chance", GREY, "dotted"),
    ):
        shares = [100 * point[name] for point in validations]
        accuracy.line(at, shares, color=colour, line_dash=dash, line_width=2, legend_label=label)
        accuracy.scatter(at, shares, color=colour, size=5)
    accuracy.legend.location = "bottom_right"
    plots = {"loss": loss, "accuracy": accuracy}
    return render("training", "ranker.html", plots, validations=validations, settings=settings)


def geocells_page(history: list[dict], validations: list[dict], settings: dict) -> bytes:
    """Of geocells: the points of CellTrainee's ``history`` and ``validations``."""
    loss, accuracy = _plot("loss"), _plot("held-out photos, %")
    loss.line(
        [p["step"] for p in history],
        [p["loss"] for p in history],
        color=BLUE,
        line_width=2,
        legend_label="learned from",
    )
    at = [point["step"] for point in validations]
    losses = [point["loss"] for point in validations]
    loss.line(at, losses, color=ORANGE, line_width=2, legend_label="held out: -log of the right place")
    loss.scatter(at, losses, color=ORANGE, size=5)
    names = {"place": ("in the right place", BLUE)} | {
        f"within_{km}_km": (f"within {km} km", colour) for km, colour in ((25, GREEN), (200, ORANGE), (750, GREY))
    }
    for name, (label, colour) in names.items():
        shares = [100 * point[name] for point in validations]
        accuracy.line(at, shares, color=colour, line_width=2, legend_label=label)
        accuracy.scatter(at, shares, color=colour, size=5)
    plots = {"loss": loss, "accuracy": accuracy}
    shown = {name: label for name, (label, _) in names.items()}
    return render("training", "geocells.html", plots, validations=validations, shown=shown, settings=settings)


def _plot(label: str) -> figure:
    plot = figure(height=420, sizing_mode="stretch_width", tools=TOOLS, x_axis_label="step", y_axis_label=label)
    plot.toolbar.logo = None
    return plot
