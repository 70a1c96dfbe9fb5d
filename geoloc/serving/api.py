"""The HTTP API, version 1, and the page. Photos are looked at and forgotten; nothing of them is stored or logged."""

import asyncio
import logging
import os
import time
from importlib import resources

import pyarrow as pa
import ray.exceptions
import ray.serve.exceptions
from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException

from geoloc.errors import UsageError
from geoloc.serving.access import LOOPBACK, Keys, Rate, is_elsewheres
from geoloc.serving.answers import Answer, answer
from geoloc.serving.contract import (
    BATCH,
    PHOTO,
    PHOTOS,
    PICTURE,
    PROBLEMS,
    BatchAnswer,
    BatchItem,
    Candidates,
    Rank,
    WithMap,
    with_limits,
)
from geoloc.serving.measures import measures
from geoloc.serving.models import Locating
from geoloc.serving.options import DeploymentOptions, ModelOptions
from geoloc.serving.page import bokeh_script, outlines
from geoloc.serving.problems import ProblemError, busy, unusable
from geoloc.serving.shares import Room
from geoloc.serving.uploads import Uploads

log = logging.getLogger("geoloc")

EXCHANGE_S = 1
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cache-Control": "no-store",
}
app = FastAPI(
    title="geoloc",
    version="1",
    description="Where was this photo taken? An estimate by a machine from what is seen in it, and often wrong.",
    openapi_url=None,
    dependencies=[Security(HTTPBearer(auto_error=False, description="An API key, where the service has any."))],
)


def _refusal(problem: ProblemError) -> Response:
    _count(problem)
    return problem.response()


def _count(problem: ProblemError) -> None:
    measures().refused.inc(tags={"status": str(problem.members["status"])})


@app.exception_handler(ProblemError)
async def _told(_: Request, problem: ProblemError) -> Response:
    return _refusal(problem)


@app.exception_handler(HTTPException)
async def _by_framework(_: Request, error: HTTPException) -> Response:
    response = _refusal(ProblemError(error.status_code, "The request cannot be answered", str(error.detail)))
    response.headers.update(error.headers or {})
    return response


@app.exception_handler(RequestValidationError)
async def _options(_: Request, error: RequestValidationError) -> Response:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return _refusal(ProblemError(422, "An option cannot be used", wrong))


@app.exception_handler(Exception)
async def _ours(_: Request, error: Exception) -> Response:
    log.error("a request failed: %s", type(error).__name__)
    return _refusal(ProblemError(500, "The service failed", "this is not the request's fault"))


def _rate_headers(scope) -> dict[str, str]:
    """What is left to whoever asks, as draft-ietf-httpapi-ratelimit-headers has it."""
    limit = scope.get("state", {}).get("rate_limit")
    if limit is None:
        return {}
    quota, left, full_s = limit
    return {
        "RateLimit-Policy": f'"photos";q={quota};w=60',
        "RateLimit": f'"photos";r={left};t={full_s}',
    }


class _WithHeaders:
    """Middleware that adds HEADERS to every answer that does not say otherwise."""

    def __init__(self, app) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in (HEADERS | _rate_headers(scope)).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


app.add_middleware(_WithHeaders)


async def _ranked(ranking: DeploymentHandle, located: pa.Table) -> pa.Table:
    """Asked once more where the ranker died of something else meanwhile."""
    try:
        return await ranking.rank.remote(located)
    except ray.exceptions.RayActorError:
        return await ranking.rank.remote(located)


async def _exchange(rate: Rate, ledger: DeploymentHandle) -> None:
    """Keeps a rate informed of what other copies of the service let pass."""
    copy = serve.get_replica_context().replica_tag
    while True:
        await asyncio.sleep(EXCHANGE_S)
        try:
            elsewhere = await ledger.exchange.remote(copy, rate.report())
        except Exception as error:
            log.warning("rates are not exchanged for the moment: %s", type(error).__name__)
            continue
        for who, photos in elsewhere.items():
            rate.charge(who, photos, here=False)


def _check_that_strangers_are_known() -> None:
    """Raises UsageError: HAProxy gives every client this machine's address, so that it must listen to this machine alone."""
    host = _get_global_client().http_config.host
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and host not in LOOPBACK:
        raise UsageError(
            f"HAProxy listens on {host}: without keys the service is for this machine alone (http_options.host)"
        )


QUERY = ("candidates", "rank", "map")
"""Options of a request for answers."""


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host


@serve.deployment
@serve.ingress(app)  # which keeps what it finds here; helpers come before
class Api:
    def __init__(
        self,
        options: DeploymentOptions,
        ranking: DeploymentHandle | None,
        ledger: DeploymentHandle | None,
        device: str,
        threads: int,
    ) -> None:
        self._options, self._ranking = options, ranking
        self._keys = Keys(options.keys)
        if not self._keys:
            _check_that_strangers_are_known()
        self._locating = Locating(options, device, threads)
        self._rate = Rate(options.photos_a_minute)
        self._ledger, self._exchanging = ledger, None
        self._uploads = Uploads(options)
        self._places = Room(options.max_waiting, "waiting places")

    async def reconfigure(self, config: dict) -> None:
        await self._locating.take_up(ModelOptions(**config))
        if self._ledger and not self._exchanging:
            self._exchanging = asyncio.create_task(_exchange(self._rate, self._ledger))

    async def check_health(self) -> None:
        await self._locating.check_health()

    @app.post(
        "/v1/geolocate",
        responses=PROBLEMS,
        openapi_extra=PHOTO,
        summary="Where was this photo taken?",
    )
    async def geolocate(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, map: WithMap = False
    ) -> Answer:
        who = self._admit(request)
        async with self._uploads.photo(request, who) as data:
            return await self._answered(data, who, candidates, rank, map)

    @app.post(
        BATCH,
        responses=PROBLEMS,
        openapi_extra=PHOTOS,
        summary="The same for several photos: answers in their order, and a photo that cannot be used fails alone.",
    )
    async def geolocate_batch(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, map: WithMap = False
    ) -> BatchAnswer:
        who = self._admit(request)
        async with self._uploads.photos(request, who, self._options.max_batch) as photos:
            self._rate.charge(who, len(photos) - 1)
            self._tell_rate(request, who)
            answers = [self._item(data, who, candidates, rank, map) for data in photos]
            return BatchAnswer(answers=await asyncio.gather(*answers))

    @app.get(
        "/v1/references/{row}/thumbnail",
        responses=PICTURE,
        response_class=Response,
        summary="The picture of a reference.",
    )
    async def thumbnail(self, request: Request, row: int) -> Response:
        self._check_key(request)
        data = self._locating.thumbnail(row)
        if data is None:
            raise ProblemError(404, "There is no such picture", f"the index has no picture of reference {row}")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    @app.get("/v1/model", responses=PROBLEMS, summary="Which models answer.")
    async def model(self, request: Request) -> dict:
        self._check_key(request)
        return self._locating.facts

    @app.get("/openapi.json", include_in_schema=False)
    async def contract(self) -> dict:
        return with_limits(app.openapi(), self._options.max_batch)

    @app.get("/", include_in_schema=False)
    async def page(self) -> HTMLResponse:
        return HTMLResponse((resources.files("geoloc.serving") / "page.html").read_text())

    @app.get("/static/{name}", include_in_schema=False)
    async def static(self, name: str) -> Response:
        lasting = {"Cache-Control": "public, max-age=86400"}
        if name == "bokeh.js":
            return Response(bokeh_script(), media_type="text/javascript", headers=lasting)
        if name == "outlines.json":
            return Response(outlines(), media_type="application/json", headers=lasting)
        if name in ("page.js", "page.css"):
            kind = "text/javascript" if name.endswith("js") else "text/css"
            return Response((resources.files("geoloc.serving") / name).read_text(), media_type=kind)
        raise ProblemError(404, "There is no such file", name)

    def _admit(self, request: Request) -> str:
        """Who asks. Raises ProblemError for one who may not, or not so often, or not now; before the photo has come."""
        who = self._check_key(request)
        if unknown := [name for name in request.query_params if name not in QUERY]:
            raise ProblemError(
                422, "An option cannot be used", f"{unknown[0]}: there is no such option; there is {', '.join(QUERY)}"
            )
        wait = self._rate.wait_s(who)
        self._tell_rate(request, who)
        if wait:
            limit = self._options.photos_a_minute
            raise ProblemError(429, "Too many requests", f"more than {limit} photos a minute", wait, limit=limit)
        with self._places.held(who) as hold:  # told now, before the photo has come, if there is none
            hold(1, self._locating.wait_s)
        return who

    def _tell_rate(self, request: Request, who: str) -> None:
        """For the answer's headers."""
        limit = self._options.photos_a_minute
        request.state.rate_limit = (limit, *self._rate.left(who))

    def _check_key(self, request: Request) -> str:
        if self._keys:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            owner = self._keys.owner(key.strip()) if scheme.lower() == "bearer" else None
            if owner is None:
                raise ProblemError(401, "No valid key", "send the header Authorization: Bearer KEY")
            return owner
        if is_elsewheres(request.headers):
            raise ProblemError(
                403, "Only for this machine", "a page of another site may not ask a service without keys"
            )
        who = request.client.host if request.client else "unknown"
        if who not in LOOPBACK or _host(request) not in LOOPBACK:  # a page elsewhere may give its own name this address
            raise ProblemError(
                403, "Only for this machine", "the service has no keys, so it answers nobody else's machine"
            )
        return who

    async def _item(self, data: bytes, who: str, candidates: int, rank: bool, with_map: bool) -> BatchItem:
        try:
            self._uploads.check(data)
            return BatchItem(answer=await self._answered(data, who, candidates, rank, with_map))
        except ProblemError as problem:
            _count(problem)
            return BatchItem(problem=problem.members)

    async def _answered(self, data: bytes | bytearray, who: str, candidates: int, rank: bool, with_map: bool) -> Answer:
        start = time.perf_counter()
        try:
            with self._places.held(who) as hold:
                hold(1, self._locating.wait_s)
                measures().waiting.set(self._places.taken)
                row = await self._located(data, who, rank)
        finally:
            measures().waiting.set(self._places.taken)
        if row["status"] == "failed":
            raise unusable(row["error_kind"], row["error"])
        told = answer(row, candidates, with_map)
        told.timings_ms["total"] = round(1000 * (time.perf_counter() - start), 1)
        for stage, milliseconds in told.timings_ms.items():
            measures().seconds.observe(milliseconds / 1000, tags={"stage": stage})
        return told

    async def _located(self, data: bytes | bytearray, who: str, rank: bool) -> dict:
        """Row of LOCATED. Raises ProblemError where the models have none to give."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._row(data, who, rank)
        except TimeoutError as error:
            raise ProblemError(504, "The answer took too long", f"over {self._options.timeout_s:g} s") from error
        except ray.serve.exceptions.BackPressureError as error:
            raise busy("the ranker has enough to do") from error
        except (ray.exceptions.RayActorError, ray.serve.exceptions.DeploymentUnavailableError) as error:
            raise ProblemError(503, "The models are starting", "try again in a moment", 5) from error

    async def _row(self, data: bytes | bytearray, who: str, rank: bool) -> dict:
        table = await self._locating.locate(data, who)
        if rank and self._ranking and table["status"][0].as_py() != "failed":
            table = await _ranked(self._ranking, table)
        [row] = table.drop_columns([name for name in ("picture",) if name in table.column_names]).to_pylist()
        return row
