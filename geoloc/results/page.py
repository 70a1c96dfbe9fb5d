"""Pages that open anywhere, without network: one HTML file with its styles, scripts and figures inside."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

import jinja2
import numpy as np
import shapely
from bokeh.embed import components
from bokeh.models import CustomJS, GlyphRenderer
from bokeh.plotting import figure
from bokeh.resources import Resources

from geoloc.geo.places import read_data

TOOLS = "pan,wheel_zoom,box_zoom,reset"


def render(package: str, template: str, figures: dict, **context: object) -> bytes:
    """The page of a template that extends ``page.html``; each of ``figures`` (Bokeh, or several in a tuple) is a variable
    there."""
    loaders = {name: jinja2.PackageLoader("geoloc", name) for name in ("results", package)}
    environment = jinja2.Environment(autoescape=True, loader=jinja2.ChoiceLoader(list(loaders.values())))
    flat = {name: one for name, one in figures.items() if not isinstance(one, tuple)}
    several = {
        name: tuple(f"{name}_{i}" for i in range(len(ones))) for name, ones in figures.items() if name not in flat
    }
    flat |= {key: one for name, keys in several.items() for key, one in zip(keys, figures[name], strict=True)}
    script, charts = components(flat)
    charts |= {name: [charts.pop(key) for key in keys] for name, keys in several.items()}
    return (
        environment.get_template(template)
        .render(
            resources=Resources(mode="inline", components=["bokeh"]).render(),
            script=script,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **charts,
            **context,
        )
        .encode()
    )


def world_map(height: int = 560) -> figure:
    """The countries' outlines (Natural Earth), to put points on: x is longitude, y latitude."""
    plot = figure(
        sizing_mode="stretch_width",
        height=height,  # until the page is drawn, which gives it the Earth's shape (page.html)
        name="map",
        x_range=(-180, 180),
        y_range=(-75, 85),
        tools=TOOLS,
        active_scroll="wheel_zoom",
        background_fill_color="#eaf0f4",
        toolbar_location="above",
    )
    plot.grid.visible = False
    plot.axis.visible = False
    xs, ys = outlines()
    plot.patches(xs, ys, fill_color="#fbfbf8", line_color="#9fb0ba", line_width=0.6, name="land")
    return plot


def with_finer(plot: figure, coarse: GlyphRenderer, fine: GlyphRenderer, degrees: float) -> None:
    """Show ``fine`` in place of ``coarse`` where fewer degrees of longitude than these are in sight."""
    fine.visible = False
    swap = "fine.visible = range.end - range.start < degrees; coarse.visible = !fine.visible"
    arguments = {"coarse": coarse, "fine": fine, "range": plot.x_range, "degrees": degrees}
    plot.x_range.js_on_change("end", CustomJS(args=arguments, code=swap))


@functools.cache
def outlines() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Longitudes and latitudes of each ring of the countries' outlines, simplified for a map of the world."""
    outlines = shapely.from_wkb(read_data("countries.parquet")["outline"].drop_null().to_numpy(zero_copy_only=False))
    rings = shapely.get_exterior_ring(shapely.get_parts(shapely.simplify(outlines, 0.05)))
    rings = rings[shapely.area(shapely.polygons(rings)) > 0.02]
    coordinates = [np.round(shapely.get_coordinates(ring), 2) for ring in rings]
    return [ring[:, 0] for ring in coordinates], [ring[:, 1] for ring in coordinates]


def grid_cells(lat: np.ndarray, lon: np.ndarray, values: np.ndarray, degrees: float) -> dict[str, np.ndarray]:
    """Too many points (n,) to draw singly: for each cell of a grid that has any, their mean ``lat``, ``lon`` and
    ``value`` (NaN where all are), their ``count``, and the ``size`` of a dot for so many.

    >>> cells = grid_cells(np.array([1.0, 2.0, 50.0]), np.zeros(3), np.array([0.2, 0.4, np.nan]), degrees=10)
    >>> cells["lat"], cells["value"].round(1), cells["count"]
    (array([ 1.5, 50. ]), array([0.3, nan]), array([2, 1]))
    """
    return CellSums.of(lat, lon, values, degrees).means()


@dataclass(frozen=True)
class CellSums:
    """Of points, in cells of a grid (m,): by row from the south pole and column from the antimeridian."""

    row: np.ndarray
    column: np.ndarray
    count: np.ndarray
    sums: np.ndarray
    """Of latitudes, longitudes, values where there is one, and their number, (4, m)."""

    @classmethod
    def of(cls, lat: np.ndarray, lon: np.ndarray, values: np.ndarray, degrees: float) -> "CellSums":
        real = np.isfinite(values)
        row, column = (np.floor((axis + half) / degrees).astype(np.int64) for axis, half in ((lat, 90), (lon, 180)))
        sums = np.stack([lat, lon, np.where(real, values, 0), real]).astype(np.float64)
        return cls(row, column, np.ones(len(row), np.int64), sums)._by_cell()

    @classmethod
    def joined(cls, several: Iterable["CellSums"]) -> "CellSums":
        """Of cells of one grid. Few at a time are held, and like is joined with like: the large ones not again with every small one."""
        held = [cls(*np.zeros((3, 0), np.int64), np.zeros((4, 0)))]
        for one in several:
            held.append(one)
            while len(held) > 1 and 2 * len(held[-1].row) >= len(held[-2].row):
                held.append(held.pop()._with(held.pop()))
        return functools.reduce(cls._with, held)

    def _with(self, other: "CellSums") -> "CellSums":
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return CellSums(*(np.concatenate(pair, axis=-1) for pair in pairs))._by_cell()

    def coarser(self, times: int) -> "CellSums":
        """Cells so many times as high and wide."""
        return replace(self, row=self.row // times, column=self.column // times)._by_cell()

    def _by_cell(self) -> "CellSums":
        _, first, cell = np.unique(np.stack([self.row, self.column]), axis=1, return_index=True, return_inverse=True)
        count, *sums = (np.bincount(cell.ravel(), values, len(first)) for values in (self.count, *self.sums))
        return CellSums(self.row[first], self.column[first], count.astype(np.int64), np.stack(sums))

    def means(self) -> dict[str, np.ndarray]:
        lat, lon, value, known = self.sums
        return {
            "lat": lat / self.count,
            "lon": lon / self.count,
            "value": np.divide(value, known, out=np.full(len(lat), np.nan), where=known > 0),
            "count": self.count,
            "size": 3 + 2.5 * np.log10(self.count + 1),
        }
