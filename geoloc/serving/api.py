"""The HTTP API, version 1. Photos are looked at and forgotten; nothing of them is stored or logged."""

import asyncio
import time

import pyarrow as pa
import ray.exceptions
import ray.serve.exceptions
from fastapi import FastAPI, Request, Response, Security
from fastapi.security import HTTPBearer
from ray import serve
from ray.serve.handle import DeploymentHandle

from geoloc.serving.access import Rate
from geoloc.serving.answers import Answer, answer
from geoloc.serving.authentication import Authentication
from geoloc.serving.contract import (
    BATCH,
    PHOTO,
    PHOTOS,
    PICTURE,
    PROBLEMS,
    BatchAnswer,
    BatchItem,
    Candidates,
    GeoJson,
    Rank,
    with_limits,
)
from geoloc.serving.exchange import exchange_rates
from geoloc.serving.handlers import add_handlers, count_refusal
from geoloc.serving.measures import measures
from geoloc.serving.models import Locating
from geoloc.serving.options import DeploymentOptions, ModelOptions
from geoloc.serving.problems import ProblemError, busy, unusable
from geoloc.serving.shares import Room
from geoloc.serving.static import router
from geoloc.serving.uploads import Uploads

QUERY = ("candidates", "rank", "map")
"""Options of a request for answers."""

app = FastAPI(
    title="geoloc",
    version="1",
    description="Where was this photo taken? An estimate by a machine from what is seen in it, and often wrong.",
    openapi_url=None,
    dependencies=[Security(HTTPBearer(auto_error=False, description="An API key, where the service has any."))],
)
add_handlers(app)
app.include_router(router)


async def _ranked(ranking: DeploymentHandle, located: pa.Table) -> pa.Table:
    """Asked once more where the ranker died of something else meanwhile."""
    try:
        return await ranking.rank.remote(located)
    except ray.exceptions.RayActorError:
        return await ranking.rank.remote(located)


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
        self._authentication = Authentication(options.keys)
        self._locating = Locating(options, device, threads)
        self._rate = Rate(options.photos_a_minute)
        self._ledger, self._exchanging = ledger, None
        self._uploads = Uploads(options)
        self._places = Room(options.max_waiting, "waiting places")

    async def reconfigure(self, config: dict) -> None:
        await self._locating.take_up(ModelOptions(**config))
        if self._ledger and not self._exchanging:
            self._exchanging = asyncio.create_task(exchange_rates(self._rate, self._ledger))

    async def check_health(self) -> None:
        await self._locating.check_health()

    @app.post(
        "/v1/geolocate",
        responses=PROBLEMS,
        openapi_extra=PHOTO,
        summary="Where was this photo taken?",
    )
    async def geolocate(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, geojson: GeoJson = False
    ) -> Answer:
        client = self._admit(request)
        async with self._uploads.photo(request, client) as data:
            return await self._answered(data, client, candidates, rank, geojson)

    @app.post(
        BATCH,
        responses=PROBLEMS,
        openapi_extra=PHOTOS,
        summary="The same for several photos: answers in their order, and a photo that cannot be used fails alone.",
    )
    async def geolocate_batch(
        self, request: Request, candidates: Candidates = 10, rank: Rank = True, geojson: GeoJson = False
    ) -> BatchAnswer:
        client = self._admit(request)
        async with self._uploads.photos(request, client, self._options.max_batch) as photos:
            self._rate.charge(client, len(photos) - 1)
            self._note_rate(request, client)
            answers = [self._item(data, client, candidates, rank, geojson) for data in photos]
            return BatchAnswer(answers=await asyncio.gather(*answers))

    @app.get(
        "/v1/references/{row}/thumbnail",
        responses=PICTURE,
        response_class=Response,
        summary="The picture of a reference.",
    )
    async def thumbnail(self, request: Request, row: int) -> Response:
        self._authentication.client(request)
        data = self._locating.thumbnail(row)
        if data is None:
            raise ProblemError(404, "There is no such picture", f"the index has no picture of reference {row}")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    @app.get("/v1/model", responses=PROBLEMS, summary="Which models answer.")
    async def model(self, request: Request) -> dict:
        self._authentication.client(request)
        return self._locating.facts

    @app.get("/openapi.json", include_in_schema=False)
    async def contract(self) -> dict:
        return with_limits(app.openapi(), self._options.max_batch)

    def _admit(self, request: Request) -> str:
        """Who asks. Raises ProblemError for one who may not, or not so often, or not now; before the photo has come."""
        client = self._authentication.client(request)
        if unknown := [name for name in request.query_params if name not in QUERY]:
            raise ProblemError(
                422, "An option cannot be used", f"{unknown[0]}: there is no such option; there is {', '.join(QUERY)}"
            )
        wait = self._rate.wait_s(client)
        self._note_rate(request, client)
        if wait:
            limit = self._options.photos_a_minute
            raise ProblemError(429, "Too many requests", f"more than {limit} photos a minute", wait, limit=limit)
        with self._places.held(client) as hold:  # told now, before the photo has come, if there is none
            hold(1, self._locating.wait_s)
        return client

    def _note_rate(self, request: Request, client: str) -> None:
        """For the answer's headers."""
        limit = self._options.photos_a_minute
        request.state.rate_limit = (limit, *self._rate.left(client))

    async def _item(self, data: bytes, client: str, candidates: int, rank: bool, geojson: bool) -> BatchItem:
        try:
            self._uploads.check(data)
            return BatchItem(answer=await self._answered(data, client, candidates, rank, geojson))
        except ProblemError as problem:
            count_refusal(problem)
            return BatchItem(problem=problem.members)

    async def _answered(
        self, data: bytes | bytearray, client: str, candidates: int, rank: bool, geojson: bool
    ) -> Answer:
        start = time.perf_counter()
        try:
            with self._places.held(client) as hold:
                hold(1, self._locating.wait_s)
                measures().waiting.set(self._places.taken)
                row = await self._located(data, client, rank)
        finally:
            measures().waiting.set(self._places.taken)
        if row["status"] == "failed":
            raise unusable(row["error_kind"], row["error"])
        answered = answer(row, candidates, geojson)
        answered.timings_ms["total"] = round(1000 * (time.perf_counter() - start), 1)
        for stage, milliseconds in answered.timings_ms.items():
            measures().seconds.observe(milliseconds / 1000, tags={"stage": stage})
        return answered

    async def _located(self, data: bytes | bytearray, client: str, rank: bool) -> dict:
        """Row of LOCATED. Raises ProblemError where the models have none to give."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                return await self._row(data, client, rank)
        except TimeoutError as error:
            raise ProblemError(504, "The answer took too long", f"over {self._options.timeout_s:g} s") from error
        except ray.serve.exceptions.BackPressureError as error:
            raise busy("the ranker has enough to do") from error
        except (ray.exceptions.RayActorError, ray.serve.exceptions.DeploymentUnavailableError) as error:
            raise ProblemError(503, "The models are starting", "try again in a moment", 5) from error

    async def _row(self, data: bytes | bytearray, client: str, rank: bool) -> dict:
        table = await self._locating.locate(data, client)
        if rank and self._ranking and table["status"][0].as_py() != "failed":
            table = await _ranked(self._ranking, table)
        [row] = table.drop_columns([name for name in ("picture",) if name in table.column_names]).to_pylist()
        return row
