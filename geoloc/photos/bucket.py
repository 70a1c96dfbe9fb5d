"""A bucket's objects in the order of their keys: stretches of them side by side, and pages parsed at a tenth of botocore's cost."""

import itertools
import random
import re
import string
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from queue import Queue
from typing import Any
from xml.etree import ElementTree

import botocore.exceptions
from botocore.awsrequest import AWSRequest
from botocore.compat import unquote_str
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from geoloc.storage import S3Options

PAGE = 1_000
"""Keys."""
FOLDER_PAGES = 8
AT_ONCE = 8
"""Stretches."""
PAGES_AHEAD, STRETCHES_AHEAD = 32, 16
"""Pages of a stretch, and such stretches, that wait while an earlier one is handed out: half a megabyte a page."""
MAX_STRETCHES = 64
"""Each costs a page or two that it does not use."""
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 12, 0.2, 20.0
"""A store that is out of order for some two minutes costs two minutes."""

ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects must be restored before they can be read."""
_PASSING = (429, 500, 502, 503, 504)
_ALPHABETS = ("0123456789abcdef", string.ascii_lowercase, string.ascii_uppercase)
_NAMESPACE = re.compile(rb"""\sxmlns=(?:"[^"]*"|'[^']*')""")
_QUERY = re.compile(r"\?[^\s\"'<>)]*")


@dataclass(frozen=True)
class _Page:
    files: list[dict] = field(default_factory=list)
    """Rows of LISTING, of a bucket's objects."""
    folders: list[str] = field(default_factory=list)
    last: str = ""
    """Key."""
    more: str | None = None
    """Where to go on from; None where nothing follows."""


class Bucket:
    """Listed by threads, whose requests are signed by botocore, which knows endpoints and credentials."""

    def __init__(self, s3: S3Options, name: str) -> None:
        """Raises botocore's errors where there are no credentials, or the bucket's region cannot be found out."""
        self._s3, self._name = s3, name
        endpoint, region = s3.address(name)
        self._client = replace(s3, region=region, endpoint=endpoint).client(signature="s3v4")
        self._session: URLLib3Session | None = None
        self._opening = threading.Lock()

    def objects(self, prefix: str) -> Iterator[dict]:
        """Rows of LISTING, in the order of their keys. Raises botocore's ClientError and BotoCoreError."""
        first = self._page(prefix)
        yield from first.files
        if first.more is None:
            return
        cuts = [cut for cut in self._cuts(prefix) or _guesses(prefix, first) if cut > first.last]
        bounds = [first.last, *cuts, None]
        for files in self._side_by_side(prefix, list(itertools.pairwise(bounds))):
            yield from files

    def _cuts(self, prefix: str) -> list[str]:
        """Folders to begin stretches with, ascending: of the first level that has several, and of those below while they are few. None
        where there are no folders."""
        folders = [prefix]
        for _ in range(4):
            if len(folders) > 2 * AT_ONCE:
                break
            below = [folder for parent in folders for folder in self._folders(parent)]
            if not below:
                break
            folders = below
        if folders == [prefix]:
            return []
        stride = -(-len(folders) // MAX_STRETCHES)
        return sorted(folders)[::stride]

    def _folders(self, parent: str) -> list[str]:
        """In it, of as many pages of what is in it as are worth while."""
        page = self._page(parent, delimiter="/")
        found = page.folders
        for _ in range(FOLDER_PAGES - 1):
            if page.more is None:
                break
            page = self._page(parent, delimiter="/", ContinuationToken=page.more)
            found += page.folders
        return found

    def _side_by_side(self, prefix: str, stretches: list[tuple[str, str | None]]) -> Iterator[list[dict]]:
        """The files of the stretches, page by page, in their order."""
        queues: list[Queue] = [Queue(PAGES_AHEAD) for _ in stretches]
        waiting, stopped = iter(range(len(stretches))), threading.Event()
        room = threading.Semaphore(STRETCHES_AHEAD)

        def work() -> None:
            while room.acquire() and (number := next(waiting, None)) is not None:
                if stopped.is_set():
                    return
                try:
                    for files in self._stretch(prefix, *stretches[number]):
                        queues[number].put(files)
                        if stopped.is_set():
                            return
                    queues[number].put(None)
                except Exception as error:  # it is raised where the files are asked for
                    queues[number].put(error)
                    return

        for _ in range(min(AT_ONCE, len(stretches))):
            threading.Thread(target=work, daemon=True, name="listing").start()
        try:
            for queue in queues:
                while (files := queue.get()) is not None:
                    if isinstance(files, Exception):
                        raise files
                    yield files
                room.release()
        finally:
            stopped.set()
            room.release(len(stretches) + AT_ONCE)
            for queue in queues:  # a thread that waits for room sees that nobody wants more
                while not queue.empty():
                    queue.get()

    def _stretch(self, prefix: str, after: str, until: str | None) -> Iterator[list[dict]]:
        """Of keys above ``after``, up to ``until``."""
        page = self._page(prefix, StartAfter=after)
        while True:
            if until is not None and page.last > until:
                yield [row for row in page.files if self._key(row) <= until]
                return
            yield page.files
            if page.more is None:
                return
            page = self._page(prefix, ContinuationToken=page.more)

    def _key(self, row: dict) -> str:
        return row["uri"][len(self._name) + 6 :]

    def _page(self, prefix: str, delimiter: str | None = None, **where: str) -> _Page:
        parameters = {
            "Bucket": self._name,
            "Prefix": prefix,
            "EncodingType": "url",
            "MaxKeys": PAGE,
            **where,
            **self._s3.payer,
        }
        headers = {"x-amz-request-payer": "requester"} if self._s3.requester_pays else {}
        if delimiter:
            parameters["Delimiter"] = delimiter
        else:
            parameters["OptionalObjectAttributes"] = ["RestoreStatus"]
            headers["x-amz-optional-object-attributes"] = "RestoreStatus"
        return self._get(parameters, headers)

    def _get(self, parameters: dict[str, Any], headers: dict[str, str]) -> _Page:
        """Trouble that may pass is waited for, and so is what is no page, though the store says that it is well."""
        for attempt in range(ATTEMPTS):
            url = self._client.generate_presigned_url("list_objects_v2", Params=parameters)
            try:
                response = self._http(url).send(AWSRequest("GET", url, headers).prepare())
                if response.status_code == 200:
                    return _parsed(response.content, self._name)
                error = _refusal(response.status_code, response.content)
                if response.status_code not in _PASSING:
                    raise error
            except botocore.exceptions.HTTPClientError as trouble:  # which tells the signed address
                error = botocore.exceptions.HTTPClientError(error=_QUERY.sub("", str(trouble)))
            except _NoPageError as odd:
                error = _refusal(200, odd.body)
            if attempt < ATTEMPTS - 1:
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
                time.sleep(pause * random.uniform(0.5, 1))
        raise error

    def _http(self, url: str) -> URLLib3Session:
        with self._opening:
            if self._session is None:
                self._session = URLLib3Session(
                    verify=self._s3.certificates,
                    proxies=get_environ_proxies(url),
                    timeout=(10, 60),
                    max_pool_connections=2 * AT_ONCE,
                )
            return self._session


class _NoPageError(Exception):
    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def _guesses(prefix: str, first: _Page) -> list[str]:
    """Where a folder without folders may be cut, ascending: any text will do, and some are nearer to even than others. By the digits of
    its names, and by what comes behind what all on the first page have in common."""
    keys = (
        [row["uri"].split("/", 3)[3] for row in (first.files[0], first.files[-1])] if first.files else (prefix, prefix)
    )
    common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*keys, strict=False)))
    cuts, last = [], keys[-1]
    for at in range(len(prefix), len(last)):
        kinds = [kind for kind in _ALPHABETS if last[at] in kind]
        if kinds and (at >= common or last[at].isdigit()) and len(cuts) < MAX_STRETCHES:
            cuts += [last[:at] + letter for letter in kinds[0] if letter > last[at]]
    return sorted(cuts)


def _refusal(status: int, body: bytes) -> botocore.exceptions.ClientError:
    try:
        root = _without_namespaces(body)
        code, message = root.findtext("Code") or str(status), root.findtext("Message") or ""
    except ElementTree.ParseError:
        code, message = str(status), "what it says is no XML"
    return botocore.exceptions.ClientError({"Error": {"Code": code, "Message": message}}, "ListObjectsV2")


def _parsed(body: bytes, bucket: str) -> _Page:
    """Raises _NoPageError for what is none, or is not whole."""
    try:
        root = _without_namespaces(body)
    except ElementTree.ParseError as error:
        raise _NoPageError(body) from error
    more = root.findtext("NextContinuationToken") if root.findtext("IsTruncated") == "true" else None
    if root.tag != "ListBucketResult" or (more is None and root.findtext("IsTruncated") == "true"):
        raise _NoPageError(body)
    quoted = root.findtext("EncodingType") == "url"
    folders = [entry.findtext("Prefix") for entry in root.iterfind("CommonPrefixes")]
    folders = [unquote_str(folder) if quoted else folder for folder in folders]
    files, key = [], ""
    for entry in root.iterfind("Contents"):
        values = {child.tag: child.text for child in entry}
        key = values["Key"]
        key = unquote_str(key) if quoted and ("%" in key or "+" in key) else key
        if not key.endswith("/"):  # a folder as consoles make them
            files.append(
                {
                    "uri": f"s3://{bucket}/{key}",
                    "size": int(values["Size"]),
                    "etag": values["ETag"],
                    "modified": datetime.fromisoformat(values["LastModified"]),
                    "archived": values.get("StorageClass") in ARCHIVED and not _is_restored(entry),
                }
            )
    return _Page(files, folders, key, more)


def _is_restored(entry: ElementTree.Element) -> bool:
    status = entry.find("RestoreStatus")
    return (
        status is not None
        and status.find("RestoreExpiryDate") is not None
        and status.findtext("IsRestoreInProgress") != "true"
    )


def _without_namespaces(body: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(_NAMESPACE.sub(b"", body, count=1))
