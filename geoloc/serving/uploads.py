"""Photos out of requests, with their limits."""

import asyncio
import base64
import binascii
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import Request
from pydantic import BaseModel, ConfigDict
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from geoloc.errors import PhotoError
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.serving.options import DeploymentOptions
from geoloc.serving.problems import ProblemError, unusable
from geoloc.serving.shares import Room

ENVELOPE_BYTES = 64 << 10
"""What a request may have beside its photos."""
TOGETHER_BYTES = 1 << 30
"""What requests may hold in memory together; twice the largest request where that is more, because one key gets half of it."""
FORM_COST, JSON_COST = 1.25, 4
"""What a byte of a body takes in memory until its photo has been decoded: a form's files grow as they come, and base64 is text
twice and bytes once."""
GRACE_S, SLOWEST = 10, 50_000
"""Seconds that any body may take, and the bytes a second that give one more time: a photo from a slow line takes minutes, and
one that stalls gives up its place."""


class Uploads:
    def __init__(self, options: DeploymentOptions) -> None:
        self._max_bytes = int(options.max_photo_mb * 2**20)
        self._max_mb, self._timeout_s, self._prefix = options.max_photo_mb, options.timeout_s, options.s3_prefix
        largest = max(options.max_batch * FORM_COST, JSON_COST * 4 / 3) * (self._max_bytes + ENVELOPE_BYTES)
        self._room = Room(max(TOGETHER_BYTES, math.ceil(2 * largest)), "memory")
        self._fetcher = Fetcher(FetchOptions(max_bytes=self._max_bytes, attempts=3, retry_s=10))

    @asynccontextmanager
    async def photo(self, request: Request, client: str) -> AsyncIterator[bytes | bytearray]:
        """The photo of a request, however it was sent. Raises ProblemError."""
        kind = _content_type(request)
        most = self._max_bytes * 4 // 3 if kind == "application/json" else self._max_bytes  # as long as base64 makes it
        with self._room.held(client) as hold:
            if kind == "multipart/form-data":
                [data] = await _files(request, self._chunks(request, most, hold, FORM_COST), 1)
            elif kind == "application/json":
                data = await self._named(await _joined(self._chunks(request, most, hold, JSON_COST)), hold)
            elif kind.startswith("image/") or kind == "application/octet-stream":
                data = await _joined(self._chunks(request, most, hold))
            else:
                raise ProblemError(
                    415,
                    "No photo",
                    "send image/… or application/octet-stream, multipart/form-data with a file, or JSON",
                )
            self.check(data)
            yield data

    @asynccontextmanager
    async def photos(self, request: Request, client: str, most: int) -> AsyncIterator[list[bytes]]:
        """The photos of a form, at least one, which are still to be checked. Raises ProblemError."""
        if _content_type(request) != "multipart/form-data":
            raise ProblemError(415, "No photos", "send multipart/form-data with files called photo")
        with self._room.held(client) as hold:
            yield await _files(request, self._chunks(request, most * self._max_bytes, hold, FORM_COST), most)

    def check(self, data: bytes | bytearray) -> None:
        """Raises ProblemError for a photo of no size, or too much."""
        if not data:
            raise unusable("empty", "the photo has no bytes")
        if len(data) > self._max_bytes:
            raise self._too_large()

    async def _chunks(
        self, request: Request, most: int, hold: Callable[[int], None], cost: float = 1
    ) -> AsyncIterator[bytes]:
        """The body as it comes, of ``most`` bytes beside ENVELOPE_BYTES, each of which will take ``cost`` in memory.

        Raises ProblemError for one that is larger, or comes too slowly.
        """
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit():
            raise ProblemError(400, "The request cannot be read", "Content-Length is no number")
        if int(declared) > most + ENVELOPE_BYTES:
            raise self._too_large()
        loop = asyncio.get_running_loop()
        start, size, body = loop.time(), 0, aiter(request.stream())
        while True:
            patience = min(self._timeout_s, GRACE_S + size / SLOWEST)
            try:
                async with asyncio.timeout_at(start + patience):
                    chunk = await anext(body, None)
            except ClientDisconnect as error:
                raise ProblemError(400, "The request broke off", "before its photo had come") from error
            except TimeoutError as error:
                raise ProblemError(
                    408,
                    "The request took too long",
                    f"{size / 2**20:.1f} MB came in {patience:.0f} s: send it faster, or again",
                ) from error
            if chunk is None:
                return
            size += len(chunk)
            if size > most + ENVELOPE_BYTES:
                raise self._too_large()
            hold(math.ceil(len(chunk) * cost))
            yield chunk

    def _too_large(self) -> ProblemError:
        return ProblemError(413, "Too large", f"a photo may have {self._max_mb:g} MB", limit_mb=self._max_mb)

    async def _named(self, body: bytearray, hold: Callable[[int], None]) -> bytes:
        try:
            named = NamedPhoto.model_validate_json(bytes(body))
        except ValueError as error:
            raise ProblemError(
                422, "The JSON cannot be used", "it is to have `image` (base64) or `uri`, and no more"
            ) from error
        if (named.image is None) == (named.uri is None):
            raise ProblemError(422, "The JSON cannot be used", "give either `image` or `uri`")
        if named.uri is not None:
            hold(self._max_bytes)
            return await self._fetched(named.uri)
        text = "".join(named.image.split())  # as mail and some encoders break it
        if text[:5].lower() == "data:":
            head, _, text = text.partition(",")
            if not head.lower().endswith(";base64"):
                raise ProblemError(422, "The JSON cannot be used", "`image` is a data: URL that is no base64")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProblemError(422, "The JSON cannot be used", "`image` is no base64") from error

    async def _fetched(self, uri: str) -> bytes:
        inside = self._prefix is not None and uri.startswith(self._prefix.rstrip("/") + "/")
        if not inside or ".." in uri.split("/"):
            raise ProblemError(403, "Not allowed", "photos may be named only below a prefix that the service allows")
        try:
            return await asyncio.to_thread(self._fetcher.get, uri)
        except PhotoError as error:
            raise unusable(error.kind, error.message) from error


class NamedPhoto(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: str | None = None
    """Base64, with line breaks or without, or a data: URL of it."""
    uri: str | None = None


class _InMemory(MultiPartParser):
    """Starlette's own puts larger files on the disk."""

    spool_max_size = sys.maxsize


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _joined(chunks: AsyncIterator[bytes]) -> bytearray:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    return body


async def _files(request: Request, chunks: AsyncIterator[bytes], most: int) -> list[bytes]:
    try:
        form = await _InMemory(request.headers, chunks, max_files=most, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise ProblemError(400, "The form cannot be read", str(error) or "it is no multipart/form-data") from error
    if others := [name for name in form if name != "photo"]:
        raise ProblemError(422, "The form cannot be used", f"it has {others[0]!r}; options are for the address's query")
    files = [file for file in form.getlist("photo") if not isinstance(file, str)]
    if not files:
        raise ProblemError(422, "No photo", "the form has no file called photo")
    read = []
    for file in files:
        read.append(await file.read())
        await file.close()
    return read
