"""Photos out of requests, with their limits."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from pydantic import BaseModel, ConfigDict
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from geoloc.errors import PhotoError
from geoloc.photos.fetch import Fetcher, FetchOptions
from geoloc.serving.options import DeploymentOptions
from geoloc.serving.problems import ProblemError, busy, unusable

ENVELOPE_BYTES = 64 << 10
"""What a request may have beside its photos."""
TOGETHER_BYTES = 1 << 30
"""What requests may hold in memory together."""


class Uploads:
    def __init__(self, options: DeploymentOptions) -> None:
        self._max_bytes = int(options.max_photo_mb * 2**20)
        self._max_mb, self._timeout_s, self._prefix = options.max_photo_mb, options.timeout_s, options.s3_prefix
        self._room = Room(TOGETHER_BYTES)
        self._fetcher = Fetcher(FetchOptions(max_bytes=self._max_bytes, attempts=3, retry_s=10))

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[bytes]:
        """The photo of a request, however it was sent. Raises ProblemError."""
        async with self._body(request, self._max_bytes * 4 // 3) as body:  # as long as base64 makes it
            kind = _content_type(request)
            if kind == "multipart/form-data":
                [data] = await _files(request, body, 1)
            elif kind == "application/json":
                data = await self._named(body)
            elif kind.startswith("image/") or kind == "application/octet-stream":
                data = body
            else:
                raise ProblemError(
                    415,
                    "No photo",
                    "send image/… or application/octet-stream, multipart/form-data with a file, or JSON",
                )
            self.check(data)
            yield data

    @asynccontextmanager
    async def photos(self, request: Request, most: int) -> AsyncIterator[list[bytes]]:
        """The photos of a form, at least one, which are still to be checked. Raises ProblemError."""
        async with self._body(request, most * self._max_bytes) as body:
            if _content_type(request) != "multipart/form-data":
                raise ProblemError(415, "No photos", "send multipart/form-data with files called photo")
            yield await _files(request, body, most)

    def check(self, data: bytes) -> None:
        """Raises ProblemError for a photo of no size, or too much."""
        if not data:
            raise unusable("empty", "the photo has no bytes")
        if len(data) > self._max_bytes:
            raise self._too_large()

    @asynccontextmanager
    async def _body(self, request: Request, most: int) -> AsyncIterator[bytes]:
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit():
            raise ProblemError(400, "The request cannot be read", "Content-Length is no number")
        if int(declared) > most + ENVELOPE_BYTES:
            raise self._too_large()
        chunks, size = [], 0
        with self._room.held() as hold:
            try:
                async with asyncio.timeout(self._timeout_s):
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > most + ENVELOPE_BYTES:
                            raise self._too_large()
                        hold(len(chunk))
                        chunks.append(chunk)
            except ClientDisconnect as error:
                raise ProblemError(400, "The request broke off", "before its photo had come") from error
            except TimeoutError as error:
                raise ProblemError(408, "The request took too long", f"over {self._timeout_s:g} s") from error
            yield b"".join(chunks)

    def _too_large(self) -> ProblemError:
        return ProblemError(413, "Too large", f"a photo may have {self._max_mb:g} MB", limit_mb=self._max_mb)

    async def _named(self, body: bytes) -> bytes:
        try:
            named = NamedPhoto.model_validate_json(body)
        except ValueError as error:
            raise ProblemError(
                422, "The JSON cannot be used", "it is to have `image` (base64) or `uri`, and no more"
            ) from error
        if (named.image is None) == (named.uri is None):
            raise ProblemError(422, "The JSON cannot be used", "give either `image` or `uri`")
        if named.uri is not None:
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


class Room:
    """Memory that requests share."""

    def __init__(self, most: int) -> None:
        """Bytes."""
        self._left = most

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """To be called with the bytes that a request takes as they come; they are free when it ends. Raises ProblemError."""
        taken = 0

        def hold(size: int) -> None:
            nonlocal taken
            if size > self._left:
                raise busy()
            self._left -= size
            taken += size

        try:
            yield hold
        finally:
            self._left += taken


class _InMemory(MultiPartParser):
    """Starlette's own puts larger files on the disk."""

    spool_max_size = TOGETHER_BYTES


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _files(request: Request, body: bytes, most: int) -> list[bytes]:
    async def whole() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await _InMemory(request.headers, whole(), max_files=most, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise ProblemError(400, "The form cannot be read", str(error) or "it is no multipart/form-data") from error
    if others := [name for name in form if name != "photo"]:
        raise ProblemError(422, "The form cannot be used", f"it has {others[0]!r}; options are for the address's query")
    files = [file for file in form.getlist("photo") if not isinstance(file, str)]
    if not files:
        raise ProblemError(422, "No photo", "the form has no file called photo")
    return [await file.read() for file in files]
