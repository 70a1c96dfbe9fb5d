"""Get photos' bytes, many at a time: one GET a photo, retried, checked against the manifest, bounded in memory."""

import contextlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import botocore.exceptions
import obstore
import obstore.exceptions
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from geoloc.errors import PhotoError
from geoloc.photos.images_in_tables import SUFFIX, TableImages
from geoloc.photos.metadata import Sidecar
from geoloc.storage import S3Options, describe, is_s3, local_etag, path_of, spellings, split_s3

UNKNOWN_SIZE = 8 << 20
"""What a photo of unknown size counts for in the look-ahead."""


_CHANGED = "it is not what was listed; the next run takes it up"
_ADDRESS = re.compile(r"""(?:https?://|\b(?=\d{1,3}(?:\.\d{1,3}){3}:\d))[^\s"']+""")
_REFUSALS = {"InvalidObjectState": "archived", "KMS": "kms", "kms:": "kms"}
_REFUSALS |= dict.fromkeys(("ExpiredToken", "InvalidToken", "TokenRefreshRequired"), "forbidden")  # with status 400
_THROTTLED = re.compile(r"SlowDown|ServiceUnavailable|TooManyRequests|RequestLimitExceeded|\b(429|503)\b")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class FetchOptions:
    max_bytes: int = 64 << 20
    concurrency: int = 32
    """GETs under way at once, a loading process."""
    look_ahead_bytes: int = 256 << 20
    """Bytes of photos fetched and not yet decoded, a loading process."""
    attempts: int = 24
    retry_s: float = 150
    """Throttling, resets and time-outs are retried with back-off for so long: a store that is out of order for two minutes costs two
    minutes."""
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class Fetched:
    data: bytes | PhotoError
    seconds: float
    sidecars: tuple[Sidecar, ...] = ()


class Fetcher:
    """Fetches with connections that last as long as the object."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._stores: dict[str, S3Store] = {}
        self._client: Any = None
        self._opening = threading.Lock()
        self._tables = TableImages(options.s3)

    def stream(self, photos: Iterable[dict]) -> Iterator[tuple[dict, Fetched]]:
        """The photos (dicts with ``uri``, ``size``, ``etag``, ``archived``, ``sidecars``) in their order, each with its bytes
        or its error.

        Later photos are being fetched while an earlier one is looked at, within ``concurrency`` and
        ``look_ahead_bytes``.
        """
        waiting: deque[tuple[dict, Future, int]] = deque()
        bytes_waiting = 0
        with ThreadPoolExecutor(self._options.concurrency, thread_name_prefix="fetch") as pool:
            for photo in photos:
                size = photo["size"] if photo["size"] is not None else UNKNOWN_SIZE
                while waiting and (
                    len(waiting) >= self._options.concurrency or bytes_waiting + size > self._options.look_ahead_bytes
                ):
                    done, future, done_size = waiting.popleft()
                    bytes_waiting -= done_size
                    yield done, future.result()
                waiting.append((photo, pool.submit(self._timed, photo), size))
                bytes_waiting += size
            while waiting:
                done, future, _ = waiting.popleft()
                yield done, future.result()

    def _timed(self, photo: dict) -> Fetched:
        start, sidecars = time.perf_counter(), ()
        try:
            if photo.get("archived"):
                raise PhotoError("archived", "it is in cold storage, and must be restored before it can be read")
            within = (photo["container"], photo["offset"]) if photo.get("container") else None
            data = self.get(photo["uri"], photo["size"], photo["etag"], within)
            sidecars = tuple(self._sidecar(uri) for uri in photo.get("sidecars") or ())
        except PhotoError as error:
            data = error
        return Fetched(data, time.perf_counter() - start, sidecars)

    def _sidecar(self, uri: str) -> Sidecar:
        try:
            data = self.get(uri)
        except PhotoError:
            data = None
        return Sidecar(uri.rsplit("/", 1)[-1], data)

    def get(
        self, uri: str, size: int | None = None, etag: str | None = None, within: tuple[str, int] | None = None
    ) -> bytes:
        """The photo's bytes. ``size`` and ``etag`` are what the manifest says; None where it does not know. ``within``: the container
        that it lies in, whose etag it is then, and where it begins there: its byte in a tar, its row in a table.

        Raises PhotoError of the kinds of fetching (geoloc.errors).
        """
        if size is not None:
            self._check_size(size)
        if within and within[0].lower().endswith(SUFFIX):
            data = self._tables.get(*within, etag)
            self._check_size(len(data))
            return data
        uri, stretch = (within[0], slice(within[1], within[1] + size)) if within else (uri, None)
        if is_s3(uri):
            data = self._get_s3(uri, etag, stretch)
        elif "://" in uri:
            raise PhotoError("forbidden", "only s3:// and local files are fetched")
        else:
            data = self._get_local(uri, etag, stretch)
        if not data:
            raise PhotoError("empty", "the file has no bytes")
        if stretch and len(data) < size:
            raise PhotoError("truncated", f"its container ends {size - len(data):,} bytes before it does")
        return data

    def _check_size(self, size: int) -> None:
        if size <= 0:
            raise PhotoError("empty", "the file has no bytes")
        if size > self._options.max_bytes:
            raise PhotoError("too_large", f"{size / 2**20:.1f} MB, the limit is {self._options.max_bytes / 2**20:g} MB")

    def _get_local(self, path: str, etag: str | None, stretch: slice | None) -> bytes:
        try:
            with open(path_of(path), "rb") as file:
                status = os.fstat(file.fileno())
                if etag is not None and local_etag(status) != etag:
                    raise PhotoError("changed", _CHANGED)
                if stretch:
                    file.seek(stretch.start)
                    return file.read(stretch.stop - stretch.start)
                self._check_size(status.st_size)
                return file.read()
        except FileNotFoundError as error:
            raise PhotoError("not_found", "there is no such file") from error
        except (PermissionError, IsADirectoryError) as error:
            raise PhotoError("forbidden", error.strerror) from error
        except ValueError as error:
            raise PhotoError("not_found", "a path cannot have such characters") from error
        except OSError as error:
            raise PhotoError("network", describe(error)) from error

    def _get_s3(self, uri: str, etag: str | None, stretch: slice | None) -> bytes:
        bucket, key = split_s3(uri)
        try:
            return self._get_key(bucket, key, etag, stretch)
        except PhotoError as error:
            if error.kind == "not_found":  # a table's key may have its accents composed otherwise than the store's
                for spelling in spellings(key):
                    with contextlib.suppress(PhotoError):
                        return self._get_key(bucket, spelling, etag, stretch)
            raise

    def _get_key(self, bucket: str, key: str, etag: str | None, stretch: slice | None) -> bytes:
        if _is_odd(key):
            return self._get_odd_key(bucket, key, etag, stretch)
        options = {"if_match": etag} if etag else {}
        if stretch:
            options["range"] = (stretch.start, stretch.stop)
        deadline = time.monotonic() + self._options.retry_s
        attempt = 0
        while True:
            try:
                result = obstore.get(self._store(bucket), key, options=options)
                if not stretch:
                    self._check_size(result.meta["size"])
                return bytes(result.bytes())
            except FileNotFoundError as error:
                raise PhotoError("not_found", _reason(error)) from error
            except (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError) as error:
                raise _refused(_reason(error)) from error
            except obstore.exceptions.PreconditionError as error:
                raise PhotoError("changed", _CHANGED) from error
            except (obstore.exceptions.BaseError, OSError) as error:
                reason = _reason(error)
                if _refusal(reason):
                    raise _refused(reason) from error
                # A body that breaks off mid-way is not retried below us; a request that failed has been.
                attempt += 1
                if attempt >= 3 or time.monotonic() > deadline or "retries" in str(error):
                    raise PhotoError("throttled" if _THROTTLED.search(reason) else "network", reason) from error
                time.sleep(0.2 * 2**attempt)

    def _store(self, bucket: str) -> S3Store:
        with self._opening:  # once, however many threads come first
            if bucket not in self._stores:
                self._stores[bucket] = _open_store(bucket, self._options)
            return self._stores[bucket]

    def _get_odd_key(self, bucket: str, key: str, etag: str | None, stretch: slice | None) -> bytes:
        with self._opening:
            if self._client is None:
                self._client = self._options.s3.client(min(self._options.attempts, 12))
        try:
            match = {"IfMatch": etag} if etag else {}
            part = {"Range": f"bytes={stretch.start}-{stretch.stop - 1}"} if stretch else {}
            response = self._client.get_object(Bucket=bucket, Key=key, **match, **part, **self._options.s3.payer)
            self._check_size(response["ContentLength"])
            return response["Body"].read()
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in (401, 403) or _refusal(_reason(error)):
                raise _refused(_reason(error)) from error
            kind = {404: "not_found", 412: "changed", 429: "throttled", 503: "throttled"}.get(status, "network")
            raise PhotoError(kind, _reason(error)) from error
        except botocore.exceptions.BotoCoreError as error:
            raise PhotoError("network", _reason(error)) from error


def _open_store(bucket: str, options: FetchOptions) -> S3Store:
    s3 = options.s3
    endpoint, region = s3.address(bucket)
    return S3Store(
        bucket,
        **({"endpoint": endpoint} if endpoint else {}),
        region=region,
        skip_signature=s3.anonymous,
        request_payer=s3.requester_pays,
        credential_provider=None if s3.anonymous else credentials_of(s3),
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "timeout": "60s",
            "connect_timeout": "10s",
        },
        retry_config={
            "max_retries": options.attempts,
            "retry_timeout": timedelta(seconds=options.retry_s),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=10),
                "base": 2,
            },
        },
    )


def credentials_of(s3: S3Options) -> Boto3CredentialProvider:
    """Asked for anew before botocore would change them, ten minutes before they expire: it, and nobody else, knows when that is."""
    return Boto3CredentialProvider(s3.session(), ttl=timedelta(minutes=8))


def _is_odd(key: str) -> bool:
    """Whether obstore would ask for another key, or for none: it drops a leading `/`, and refuses what is below."""
    return bool(_CONTROL.search(key)) or any(segment in ("", ".", "..") for segment in key.split("/"))


def _refusal(reason: str) -> str | None:
    """The kind, where a store's words say more than that access is denied."""
    return next((kind for words, kind in _REFUSALS.items() if words in reason), None)


def _refused(reason: str) -> PhotoError:
    return PhotoError(_refusal(reason) or "forbidden", reason)


def _reason(error: Exception) -> str:
    """What the store said, without the client's debug output, and without addresses: where a store is, is nobody's business
    who reads results or answers."""
    return _ADDRESS.sub("the store", str(error).split("Debug source:")[0])
