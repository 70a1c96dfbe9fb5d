"""Reports in a real browser."""

import pytest

from geoloc.results.parts import Parts
from geoloc.results.report import FINE_CELLS, SINGLE_POINTS, write_report
from geoloc.results.summary import COLUMNS, Summary
from geoloc.storage import Folder
from tests.browser import PHONE, axe
from tests.results.test_results import ROWS, results, row

RECORD = {
    "settings": {"encoder": "lite"},
    "options": {"source": "s"},
    "recipe": {"name": "lite"},
    "last_work": {
        "photos": 4,
        "seconds": 9.0,
        "first_photos": 2,
        "first_seconds": 5.0,
        "rate": 0.5,
        "stage_seconds": {},
    },
}
FIGURES = "Bokeh.documents.flatMap(one => [...one.all_models])"


def report(folder, rows: list[list[dict]]):
    parts = Parts(Folder(str(folder / "geotags")))
    for some in rows:
        parts.add(results(some))
    write_report(Folder(str(folder)), parts, Summary.of(parts.tables(COLUMNS)), RECORD)
    return folder / "report.html"


@pytest.fixture(params=["desk", "phone"])
def opened(request, browser):
    context = browser.new_context(**(PHONE if request.param == "phone" else {}))
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.phone = request.param == "phone"
    yield page
    assert page.wrong == []
    context.close()


def drawn(page, path) -> None:
    page.goto(path.as_uri())
    page.wait_for_function("Bokeh.documents.length > 0")
    page.wait_for_function(f"{FIGURES}.some(model => model.name === 'map' && model.height !== 560)")


def test_it_fits_is_dark_where_asked_and_axe_finds_nothing(opened, tmp_path):
    drawn(opened, report(tmp_path, [ROWS]))
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sea = opened.evaluate(f"{FIGURES}.find(model => model.name === 'map').background_fill_color")
    assert sea == ("#141c21" if opened.phone else "#eaf0f4")
    opened.wait_for_timeout(300)
    shape = opened.evaluate("Bokeh.index.roots[0].frame.bbox.width / Bokeh.index.roots[0].frame.bbox.height")
    assert shape == pytest.approx(360 / 160, rel=0.12)
    assert axe(opened) == []
    assert "5.0 of them until the first 2 were written" in opened.content()


def test_photos_at_one_place_are_one_dot_with_their_number(opened, tmp_path):
    here = [row(number, uri=f"/p/{number}.jpg") for number in range(5)]
    drawn(opened, report(tmp_path, [[*here, row(5, uri="/p/5.jpg", lat=1.0)]]))
    dots = opened.evaluate(f"{FIGURES}.find(model => model.type === 'ColumnDataSource' && model.data.name).data")
    assert len(dots["lat"]) == 2
    assert sorted(dots["name"]) == ["0.jpg, 1.jpg, 2.jpg and 2 more: 5 photos here", "5.jpg"]


def test_cells_are_finer_where_one_zooms_in(browser, tmp_path, random):
    rows = [
        row(number, uri="", lat=float(lat), lon=float(lon), candidates=None)
        for number, (lat, lon) in enumerate(random.uniform((46, 2), (50, 8), (SINGLE_POINTS + 1000, 2)))
    ]
    page = browser.new_page()
    drawn(page, report(tmp_path, [rows]))
    counts = page.evaluate(
        f"{FIGURES}.filter(model => model.type === 'GlyphRenderer' && model.data_source.data.count).map(model => [model.visible, model.data_source.get_length()])"
    )
    assert [visible for visible, _ in counts] == [True, False]
    assert counts[0][1] <= 8 * 12 + 30 < 20 * counts[0][1] < counts[1][1] <= FINE_CELLS
    page.evaluate(f"{FIGURES}.find(model => model.name === 'map').x_range.setv({{start: 0, end: 10}})")
    seen = page.evaluate(
        f"{FIGURES}.filter(model => model.type === 'GlyphRenderer' && model.data_source.data.count).map(model => model.visible)"
    )
    assert seen == [False, True]
