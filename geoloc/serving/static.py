"""The page and its files, from this package and from installed ones. Anybody may read them."""

import functools
import json
from importlib import resources
from pathlib import Path

import bokeh
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from geoloc.results.page import outlines
from geoloc.serving.problems import ProblemError

LASTING = {"Cache-Control": "public, max-age=86400"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> HTMLResponse:
    return HTMLResponse(_own("page.html"))


@router.get("/static/{name}")
async def static(name: str) -> Response:
    if name == "bokeh.js":
        return Response(_bokeh_script(), media_type="text/javascript", headers=LASTING)
    if name == "outlines.json":
        return Response(_outlines(), media_type="application/json", headers=LASTING)
    if name in ("page.js", "page.css"):
        return Response(_own(name), media_type="text/javascript" if name.endswith("js") else "text/css")
    raise ProblemError(404, "There is no such file", name)


def _own(name: str) -> str:
    return (resources.files("geoloc.serving") / name).read_text()


@functools.cache
def _bokeh_script() -> bytes:
    folder = Path(bokeh.__file__).parent / "server" / "static" / "js"
    return b"\n".join((folder / name).read_bytes() for name in ("bokeh.min.js", "bokeh-api.min.js"))


@functools.cache
def _outlines() -> bytes:
    xs, ys = outlines()
    return json.dumps({"xs": [x.tolist() for x in xs], "ys": [y.tolist() for y in ys]}).encode()
