"""Get photos' bytes, many at a time: one GET a photo, retried, checked against the manifest, bounded in memory."""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.exceptions
import obstore
import obstore.exceptions
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from geoloc.errors import PhotoError
from geoloc.photos.sources import local_etag
from geoloc.storage import S3Options, describe, is_s3, split_s3

UNKNOWN_SIZE = 8 << 20
"""What a photo of unknown size counts for in the look-ahead."""


@dataclass(frozen=True)
class FetchOptions:
    max_bytes: int = 64 << 20
    concurrency: int = 32
    """GETs under way at once, a loading process."""
    look_ahead_bytes: int = 256 << 20
    """Bytes of photos fetched and not yet decoded, a loading process."""
    attempts: int = 8
    retry_s: float = 60
    """Throttling, resets and time-outs are retried with back-off for so long."""
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class Fetched:
    data: bytes | PhotoError
    seconds: float


class Fetcher:
    """Fetches with connections that last as long as the object."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self._stores: dict[str, S3Store] = {}
        self._client: Any = None
        self._opening = threading.Lock()

    def stream(self, photos: Iterable[dict]) -> Iterator[tuple[dict, Fetched]]:
        """The photos (dicts with ``uri``, ``size``, ``etag``) in their order, each with its bytes or its error.

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
        start = time.perf_counter()
        try:
            data = self.get(photo["uri"], photo["size"], photo["etag"])
        except PhotoError as error:
            data = error
        return Fetched(data, time.perf_counter() - start)

    def get(self, uri: str, size: int | None = None, etag: str | None = None) -> bytes:
        """The photo's bytes. ``size`` and ``etag`` are what the manifest says; None where it does not know.

        Raises PhotoError of the kinds ``empty``, ``too_large``, ``not_found``, ``forbidden``, ``changed``,
        ``network``.
        """
        if size is not None:
            self._check_size(size)
        if is_s3(uri):
            data = self._get_s3(uri, etag)
        elif "://" in uri:
            raise PhotoError("forbidden", "only s3:// and local files are fetched")
        else:
            data = self._get_local(uri, etag)
        if not data:
            raise PhotoError("empty", "the file has no bytes")
        return data

    def _check_size(self, size: int) -> None:
        if size == 0:
            raise PhotoError("empty", "the file has no bytes")
        if size > self._options.max_bytes:
            raise PhotoError("too_large", f"{size / 2**20:.1f} MB, the limit is {self._options.max_bytes / 2**20:g} MB")

    def _get_local(self, path: str, etag: str | None) -> bytes:
        try:
            with Path(path).open("rb") as file:
                status = os.fstat(file.fileno())
                if etag is not None and local_etag(status) != etag:
                    raise PhotoError("changed", "the file is not the one that was listed; the next run takes it up")
                self._check_size(status.st_size)
                return file.read()
        except FileNotFoundError as error:
            raise PhotoError("not_found", "there is no such file") from error
        except (PermissionError, IsADirectoryError) as error:
            raise PhotoError("forbidden", error.strerror) from error
        except OSError as error:
            raise PhotoError("network", describe(error)) from error

    def _get_s3(self, uri: str, etag: str | None) -> bytes:
        bucket, key = split_s3(uri)
        deadline = time.monotonic() + self._options.retry_s
        attempt = 0
        while True:
            try:
                result = obstore.get(self._store(bucket), key, options={"if_match": etag} if etag else {})
                self._check_size(result.meta["size"])
                return bytes(result.bytes())
            except ValueError:  # obstore normalises keys, and refuses `a//b`, `./a` and control characters
                return self._get_odd_key(bucket, key, etag)
            except FileNotFoundError as error:
                raise PhotoError("not_found", _reason(error)) from error
            except (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError) as error:
                raise PhotoError("forbidden", _reason(error)) from error
            except obstore.exceptions.PreconditionError as error:
                raise PhotoError(
                    "changed", "the object is not the one that was listed; the next run takes it up"
                ) from error
            except (obstore.exceptions.BaseError, OSError) as error:
                # A body that breaks off mid-way is not retried below us; a request that failed has been.
                attempt += 1
                if attempt >= 3 or time.monotonic() > deadline or "retries" in str(error):
                    raise PhotoError("network", _reason(error)) from error
                time.sleep(0.2 * 2**attempt)

    def _store(self, bucket: str) -> S3Store:
        with self._opening:  # once, however many threads come first
            if bucket not in self._stores:
                self._stores[bucket] = _open_store(bucket, self._options)
            return self._stores[bucket]

    def _get_odd_key(self, bucket: str, key: str, etag: str | None) -> bytes:
        with self._opening:
            if self._client is None:
                self._client = self._options.s3.client()
        try:
            match = {"IfMatch": etag} if etag else {}
            response = self._client.get_object(Bucket=bucket, Key=key, **match)
            self._check_size(response["ContentLength"])
            return response["Body"].read()
        except botocore.exceptions.ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            kind = {404: "not_found", 403: "forbidden", 401: "forbidden", 412: "changed"}.get(status, "network")
            raise PhotoError(kind, describe(error)) from error
        except botocore.exceptions.BotoCoreError as error:
            raise PhotoError("network", describe(error)) from error


def _open_store(bucket: str, options: FetchOptions) -> S3Store:
    s3 = options.s3
    endpoint, region = s3.address(bucket)
    return S3Store(
        bucket,
        **({"endpoint": endpoint} if endpoint else {}),
        region=region,
        skip_signature=s3.anonymous,
        credential_provider=None if s3.anonymous else Boto3CredentialProvider(s3.session()),
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


def _reason(error: Exception) -> str:
    """What the store said, without the client's debug output."""
    return str(error).split("Debug source:")[0]
