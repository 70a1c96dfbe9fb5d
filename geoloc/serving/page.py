"""What the page is drawn with, from installed packages: BokehJS and the countries' outlines."""

import functools
import json
from pathlib import Path

import bokeh

from geoloc.results.page import outlines as rings


@functools.cache
def bokeh_script() -> bytes:
    folder = Path(bokeh.__file__).parent / "server" / "static" / "js"
    return b"\n".join((folder / name).read_bytes() for name in ("bokeh.min.js", "bokeh-api.min.js"))


@functools.cache
def outlines() -> bytes:
    xs, ys = rings()
    return json.dumps({"xs": [x.tolist() for x in xs], "ys": [y.tolist() for y in ys]}).encode()
