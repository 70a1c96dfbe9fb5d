"""The HTTP API, version 1, and the page. Photos are looked at and forgotten; nothing of them is stored or logged."""

import asyncio
import base64
import binascii
import logging
import os
import time
from collections.abc import Callable
from importlib import resources
from typing import Annotated

import ray.exceptions
import ray.serve.exceptions
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from geoloc.errors import PhotoError, UsageError
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.serving.access import Rate, Room, named, read_keys
from geoloc.serving.answers import Answer, answer
from geoloc.serving.measures import measures
from geoloc.serving.models import Locating
from geoloc.serving.options import ModelOptions, ServingOptions
from geoloc.serving.page import bokeh_script, outlines
from geoloc.serving.problems import MEDIA_TYPE, ProblemError, busy, unusable

log = logging.getLogger("geoloc")

LOCAL = ("127.0.0.1", "::1", "[::1]", "localhost")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cache-Control": "no-store",
}
ENVELOPE_BYTES = 64 << 10
"""What a request may have beside its photos."""
UPLOADS_BYTES = 1 << 30
"""What requests may hold in memory together."""


class NamedPhoto(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str | None = None
    """Base64."""
    uri: str | None = None
    """s3://…, below the prefix that the service allows."""


class BatchItem(BaseModel):
    answer: Answer | None = None
    problem: dict | None = None


class BatchAnswer(BaseModel):
    answers: list[BatchItem]


Candidates = Annotated[int, Query(ge=0, le=2048, description="How many candidates to tell, best first.")]
Rank = Annotated[bool, Query(description="Have the ranker put the candidates in order, where there is one.")]
WithMap = Annotated[bool, Query(description="Add GeoJSON of the estimate, its circle and the candidates.")]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"type": "object", "required": ["title", "status", "detail"]}}}}
_PROBLEMS = {
    status: _PROBLEM | {"description": description}
    for status, description in {
        400: "The request cannot be read",
        401: "No key, or a wrong one",
        403: "Not allowed",
        404: "There is no such thing",
        408: "The request took too long to arrive",
        413: "Too large",
        415: "No photo in a form that is understood",
        422: "The photo, or an option, cannot be used",
        429: "Too many requests; Retry-After says when to come again",
        503: "The models are starting",
        504: "The models took too long",
    }.items()
}
_PHOTO = {
    "image/*": _BINARY,
    "application/octet-stream": _BINARY,
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["photo"],
            "properties": {"photo": {"type": "string", "format": "binary"}},
        }
    },
    "application/json": {
        "schema": NamedPhoto.model_json_schema(),
        "examples": {
            "in base64": {"value": {"image": "/9j/4AAQSkZJRg…"}},
            "in S3": {"value": {"uri": "s3://bucket/photos/1.jpg"}},
        },
    },
}
_PHOTOS = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["photo"],
            "properties": {"photo": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    }
}

app = FastAPI(
    title="geoloc",
    version="1",
    description="Where was this photo taken? An estimate by a machine from what is seen in it, and often wrong.",
    docs_url=None,
    redoc_url=None,
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
    return _refusal(ProblemError(error.status_code, "The request cannot be answered", str(error.detail)))


@app.exception_handler(RequestValidationError)
async def _options(_: Request, error: RequestValidationError) -> Response:
    wrong = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return _refusal(ProblemError(422, "An option cannot be used", wrong))


@app.exception_handler(Exception)
async def _ours(_: Request, error: Exception) -> Response:
    log.error("a request failed: %s", type(error).__name__)
    return _refusal(ProblemError(500, "The service failed", "this is not the request's fault"))


class _WithHeaders:
    """Middleware that adds HEADERS to every answer that does not say otherwise."""

    def __init__(self, app) -> None:
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


app.add_middleware(_WithHeaders)


class _InMemory(MultiPartParser):
    """Starlette's own puts larger files on the disk."""

    spool_max_size = UPLOADS_BYTES


async def _asked(method: DeploymentHandle, *arguments: object):
    """What the models answer; asked once more where they died of something else meanwhile."""
    try:
        return await method.remote(*arguments)
    except ray.exceptions.RayActorError:
        return await method.remote(*arguments)


def _check_that_strangers_are_known() -> None:
    """Raises UsageError: HAProxy gives every client this machine's address, so that it must listen to this machine alone."""
    host = _get_global_client().http_config.host
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and host not in LOCAL:
        raise UsageError(
            f"HAProxy listens on {host}: without keys the service is for this machine alone (http_options.host)"
        )


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host


@serve.deployment
@serve.ingress(app)  # which keeps what it finds here; helpers come before
class Api:
    def __init__(self, options: ServingOptions, ranking: DeploymentHandle | None, device: str, threads: int) -> None:
        self._options, self._ranking = options, ranking
        self._keys = read_keys(options.keys)
        if not self._keys:
            _check_that_strangers_are_known()
        self._locating = Locating(int(options.max_megapixels * 1e6), device, threads, options.batch_size)
        self._rate = Rate(options.photos_a_minute)
        self._room = Room(UPLOADS_BYTES)
        self._waiting = 0
        self._max_bytes = int(options.max_photo_mb * 2**20)
        self._fetcher = Fetcher(FetchOptions(max_bytes=self._max_bytes, attempts=3, retry_s=10))

    async def reconfigure(self, config: dict) -> None:
        await self._locating.take_up(ModelOptions(**config))

    async def check_health(self) -> None:
        await self._locating.check_health()

    @app.post(
        "/v1/geolocate",
        responses=_PROBLEMS,
        openapi_extra={"requestBody": {"required": True, "content": _PHOTO}},
        summary="Where was this photo taken?",
    )
    async def geolocate(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, map: WithMap = False
    ) -> Answer:
        self._admit(request)
        with self._room.held() as hold:
            [data] = await self._photos(request, 1, hold)
            return await self._answered(data, candidates, rank, map)

    @app.post(
        "/v1/geolocate/batch",
        responses=_PROBLEMS,
        openapi_extra={"requestBody": {"required": True, "content": _PHOTOS}},
        summary="The same for several photos: answers in their order, and a photo that cannot be used fails alone.",
    )
    async def geolocate_batch(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, map: WithMap = False
    ) -> BatchAnswer:
        who = self._admit(request)
        with self._room.held() as hold:
            photos = await self._photos(request, self._options.max_batch, hold)
            self._rate.charge(who, len(photos) - 1)
            answers = [self._item(data, candidates, rank, map) for data in photos]
            return BatchAnswer(answers=await asyncio.gather(*answers))

    @app.get(
        "/v1/references/{row}/thumbnail",
        responses=_PROBLEMS | {200: {"content": {"image/jpeg": _BINARY}}},
        response_class=Response,
        summary="The picture of a reference.",
    )
    async def thumbnail(self, request: Request, row: int) -> Response:
        self._check_key(request)
        data = self._locating.thumbnail(row)
        if data is None:
            raise ProblemError(404, "There is no such picture", f"the index has no picture of reference {row}")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    @app.get("/v1/model", responses=_PROBLEMS, summary="Which models answer.")
    async def model(self, request: Request) -> dict:
        self._check_key(request)
        return self._locating.facts

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
        if wait := self._rate.wait_s(who):
            limit = self._options.photos_a_minute
            raise ProblemError(429, "Too many requests", f"more than {limit} photos a minute", wait, limit=limit)
        self._check_waiting()
        return who

    def _check_key(self, request: Request) -> str:
        if self._keys:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            owner = named(self._keys, key.strip()) if scheme.lower() == "bearer" else None
            if owner is None:
                raise ProblemError(401, "No valid key", "send the header Authorization: Bearer KEY")
            return owner
        who = request.client.host if request.client else "unknown"
        if who not in LOCAL or _host(request) not in LOCAL:  # a page elsewhere may give its own name this address
            raise ProblemError(
                403, "Only for this machine", "the service has no keys, so it answers nobody else's machine"
            )
        return who

    def _check_waiting(self) -> None:
        if self._waiting >= self._options.max_waiting:
            raise busy(self._locating.wait_s)

    async def _photos(self, request: Request, most: int, hold: Callable[[int], None]) -> list[bytes]:
        """The photos of a request, at least one. Raises ProblemError."""
        limit = most * self._max_bytes * (4 if most == 1 else 3) // 3 + ENVELOPE_BYTES
        try:
            async with asyncio.timeout(self._options.timeout_s):
                body = await self._body(request, limit, hold)
        except TimeoutError as error:
            raise ProblemError(408, "The request took too long", f"over {self._options.timeout_s:g} s") from error
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            photos = await self._of_form(request, body, most)
        elif most > 1:
            raise ProblemError(415, "No photos", "send multipart/form-data with files called photo")
        elif kind == "application/json":
            photos = [await self._named(body)]
        elif kind.startswith("image/") or kind == "application/octet-stream":
            photos = [body]
        else:
            raise ProblemError(
                415, "No photo", "send image/… or application/octet-stream, multipart/form-data with a file, or JSON"
            )
        for data in photos:
            if not data:
                raise unusable("empty", "the photo has no bytes")
            if len(data) > self._max_bytes and most == 1:
                raise self._too_large()
        return photos

    async def _body(self, request: Request, limit: int, hold: Callable[[int], None]) -> bytes:
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit():
            raise ProblemError(400, "The request cannot be read", "Content-Length is no number")
        if int(declared) > limit:
            raise self._too_large()
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise self._too_large()
            hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> ProblemError:
        limit = self._options.max_photo_mb
        return ProblemError(413, "Too large", f"a photo may have {limit:g} MB", limit_mb=limit)

    async def _of_form(self, request: Request, body: bytes, most: int) -> list[bytes]:
        async def whole():
            yield body

        try:
            form = await _InMemory(request.headers, whole(), max_files=most, max_fields=8).parse()
        except (MultiPartException, KeyError, ValueError) as error:
            raise ProblemError(400, "The form cannot be read", str(error) or "it is no multipart/form-data") from error
        files = [value for name, value in form.multi_items() if name == "photo" and not isinstance(value, str)]
        if not files:
            raise ProblemError(422, "No photo", "the form has no file called photo")
        return [await file.read() for file in files]

    async def _named(self, body: bytes) -> bytes:
        try:
            named_photo = NamedPhoto.model_validate_json(body)
        except ValueError as error:
            raise ProblemError(
                422, "The JSON cannot be used", "it is to have `image` (base64) or `uri`, and no more"
            ) from error
        if (named_photo.image is None) == (named_photo.uri is None):
            raise ProblemError(422, "The JSON cannot be used", "give either `image` or `uri`")
        if named_photo.image is not None:
            try:
                return base64.b64decode(named_photo.image, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ProblemError(422, "The JSON cannot be used", "`image` is no base64") from error
        return await self._fetched(named_photo.uri)

    async def _fetched(self, uri: str) -> bytes:
        prefix = self._options.s3_prefix
        inside = prefix is not None and uri.startswith(prefix.rstrip("/") + "/")
        if not inside or ".." in uri.split("/"):
            raise ProblemError(403, "Not allowed", "photos may be named only below a prefix that the service allows")
        try:
            return await asyncio.to_thread(self._fetcher.get, uri)
        except PhotoError as error:
            raise unusable(error.kind, error.message) from error

    async def _item(self, data: bytes, candidates: int, rank: bool, with_map: bool) -> BatchItem:
        try:
            if len(data) > self._max_bytes:
                raise self._too_large()
            return BatchItem(answer=await self._answered(data, candidates, rank, with_map))
        except ProblemError as problem:
            _count(problem)
            return BatchItem(problem=problem.members)

    async def _answered(self, data: bytes, candidates: int, rank: bool, with_map: bool) -> Answer:
        self._check_waiting()
        start = time.perf_counter()
        self._count_waiting(1)
        try:
            async with asyncio.timeout(self._options.timeout_s):
                row = await self._row(data, rank)
        except TimeoutError as error:
            raise ProblemError(504, "The models took too long", f"over {self._options.timeout_s:g} s") from error
        except ray.serve.exceptions.BackPressureError as error:
            raise busy() from error
        except (ray.exceptions.RayActorError, ray.serve.exceptions.DeploymentUnavailableError) as error:
            raise ProblemError(503, "The models are starting", "try again in a moment", 5) from error
        finally:
            self._count_waiting(-1)
        if row["status"] == "failed":
            raise unusable(row["error_kind"], row["error"])
        told = answer(row, candidates, with_map)
        told.timings_ms["total"] = round(1000 * (time.perf_counter() - start), 1)
        for stage, milliseconds in told.timings_ms.items():
            measures().seconds.observe(milliseconds / 1000, tags={"stage": stage})
        return told

    async def _row(self, data: bytes, rank: bool) -> dict:
        """Of LOCATED."""
        table = await self._locating.locate(data)
        if rank and self._ranking and table["status"][0].as_py() != "failed":
            table = await _asked(self._ranking.rank, table)
        [row] = table.drop_columns([name for name in ("picture",) if name in table.column_names]).to_pylist()
        return row

    def _count_waiting(self, more: int) -> None:
        self._waiting += more
        measures().waiting.set(self._waiting)
