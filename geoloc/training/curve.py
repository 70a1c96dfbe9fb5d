"""``report.html`` of a training run: its loss curve and its settings, in one file."""

from bokeh.plotting import figure

from geoloc.results.page import TOOLS, render


def loss_page(history: list[dict], settings: dict) -> bytes:
    """Of points with ``step``, ``epoch``, ``text`` and ``location``."""
    plot = figure(
        height=420, sizing_mode="stretch_width", tools=TOOLS, x_axis_label="step", y_axis_label="loss (InfoNCE)"
    )
    steps = [point["step"] for point in history]
    for name, colour in (("text", "#21918c"), ("location", "#440154")):
        plot.line(steps, [point[name] for point in history], color=colour, line_width=2, legend_label=f"image–{name}")
    plot.toolbar.logo = None
    return render("training", "training.html", {"curve": plot}, history=history, settings=settings)
