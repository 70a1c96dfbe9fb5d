"""Where files are: a local folder or an S3 bucket, reached the way the AWS tools reach it."""

import contextlib
import errno
import functools
import os
import re
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import boto3
import botocore.config
import botocore.exceptions
import botocore.session
import fsspec

from geoloc.errors import UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RETRIES = 18
"""Of s3fs, where a store is out of order: some two minutes. One that cannot be reached at all is told at once."""
_TEST_BYTES = 1 << 16
"""A full disk takes an empty file."""


CREATE_ATTEMPTS, CREATE_PAUSE_S = 8, 0.5
_AWS = re.compile(r"https?://s3[.-][^/]*amazonaws\.com(\.cn)?/?$")
_THERE = ("PreconditionFailed", "412")
_NO_CONDITIONS = ("NotImplemented", "501", "InvalidArgument", "InvalidRequest")
"""What stores answer to If-None-Match that do not know it."""


class NoConditionsError(Exception):
    """A store cannot write a file only if there is none."""


@dataclass(frozen=True)
class S3Options:
    """How to reach S3. What is not given comes from the standard AWS environment, profile or instance role."""

    profile: str | None = None
    """Named profile of the AWS configuration files (default: AWS_PROFILE)."""
    region: str | None = None
    """Region (default: AWS_REGION, AWS_DEFAULT_REGION or the profile's)."""
    endpoint: str | None = None
    """URL of an S3-compatible store such as MinIO or Ceph (default: AWS_ENDPOINT_URL or the profile's)."""
    anonymous: bool = False
    """Send unsigned requests, for public buckets."""
    requester_pays: bool = False
    """Pay for the requests, where a bucket's owner does not."""

    @property
    def payer(self) -> dict[str, str]:
        """What boto3 is to be told with every request."""
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def session(self) -> boto3.session.Session:
        try:
            return boto3.session.Session(profile_name=self.profile, region_name=self.region)
        except botocore.exceptions.ProfileNotFound as error:
            raise UsageError(f"--s3.profile {self.profile}: {error}") from error

    def client(self, attempts: int = 8, signature: str | None = None) -> Any:
        """A boto3 S3 client. ``signature``: its version, where it matters. Also the authority on which endpoint and region the environment means."""
        config = botocore.config.Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=10,
            read_timeout=60,
            signature_version=botocore.UNSIGNED if self.anonymous else signature,
        )
        return self.session().client("s3", endpoint_url=self.endpoint, config=config)

    @property
    def certificates(self) -> str | bool:
        """A file of those that stores' are checked by, or True for the usual ones; as botocore finds it."""
        configured = botocore.session.Session(profile=self.profile).get_config_variable("ca_bundle")
        return configured or os.environ.get("REQUESTS_CA_BUNDLE", True)

    def address(self, bucket: str) -> tuple[str | None, str]:
        """Endpoint (None for the usual one of AWS) and region of a bucket, which there need not be the configured one."""
        client = self.client()
        region, endpoint = client.meta.region_name or "us-east-1", client.meta.endpoint_url
        usual = endpoint in ("https://s3.amazonaws.com", f"https://s3.{region}.amazonaws.com")
        if not usual and not (self.endpoint and _AWS.match(self.endpoint)):
            return endpoint.replace("aws-global", region), region  # us-east-1's name in a FIPS or dual-stack endpoint
        try:
            headers = client.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
        except botocore.exceptions.ClientError as error:  # it tells even those whom it tells nothing else
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        return self.endpoint, headers.get("x-amz-bucket-region", region)

    def filesystem(self) -> fsspec.AbstractFileSystem:
        import s3fs  # slow to import, and local folders do without it

        filesystem = s3fs.S3FileSystem(
            profile=self.profile,
            anon=self.anonymous,
            endpoint_url=self.endpoint,
            requester_pays=self.requester_pays,
            client_kwargs={"region_name": self.region} if self.region else {},
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        filesystem.retries = RETRIES
        return filesystem


@dataclass(frozen=True)
class SourceS3Options:
    """How to reach SOURCE's photos, where that is another way than --s3.*: what is not given is as there."""

    profile: str | None = None
    """Named profile of the AWS configuration files."""
    region: str | None = None
    """Region."""
    endpoint: str | None = None
    """URL of an S3-compatible store, or of AWS's, such as https://s3.us-east-1.amazonaws.com."""
    anonymous: bool = False
    """Send unsigned requests, for a public bucket."""
    requester_pays: bool = False
    """Pay for the requests, where the bucket's owner does not."""

    def over(self, s3: S3Options) -> S3Options:
        """With what is given here."""
        return replace(s3, **{name: value for name, value in vars(self).items() if value})


def is_s3(uri: str) -> bool:
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """``s3://bucket/some/key`` as (bucket, key); the key is taken as it stands, whatever characters it has."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def uri_of(path: str) -> str:
    """A local path as text, also where its bytes are no UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def path_of(uri: str) -> str:
    """The local path that ``uri_of`` made it of; or one whose accents are composed otherwise, where only that is there."""
    if os.path.lexists(uri):
        return uri
    for path in (raw_name(uri), *spellings(uri)):
        if os.path.lexists(path):
            return path
    return uri


def local_etag(status: os.stat_result) -> str:
    """What an S3 etag is to an object: another content, another tag."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def raw_name(text: str) -> str:
    """A name as Python's file functions take it, of what ``uri_of`` made of it."""
    return re.sub(r"\\udc([0-9a-f]{2})", lambda byte: chr(0xDC00 + int(byte[1], 16)), text)


def spellings(name: str) -> list[str]:
    """The same text with accents composed (NFC) and decomposed (NFD), where that is another."""
    return [other for form in ("NFC", "NFD") if (other := unicodedata.normalize(form, name)) != name]


def _absolute(path: str) -> str:
    """Of a local path; links stay as they are. Raises UsageError where a relative one would be lost."""
    path = os.path.expanduser(path)
    if not os.path.isabs(path) and "working_dir_files" in Path.cwd().parts:
        raise UsageError(
            f"{path}: is a relative path, and a job submitted with --working-dir runs in a temporary copy of it, which Ray "
            "deletes; give s3://… or an absolute path that every node has"
        )
    return os.path.abspath(path)


class Fence(Protocol):
    """Whose turn it is to write (geoloc.pipeline.lease)."""

    term: int
    """Grows from turn to turn."""

    def __call__(self) -> None:
        """Raises UsageError where the turn is another's."""


@dataclass(frozen=True)
class Folder:
    """A folder that a run or an index lives in. A file is seen whole or not at all: writes are atomic."""

    uri: str
    s3: S3Options = field(default_factory=S3Options)
    fence: Fence | None = field(default=None, compare=False)
    """Asked before every change, here and in the folders in it."""

    def __post_init__(self) -> None:
        if not is_s3(self.uri) and "://" in self.uri:
            raise UsageError(f"{self.uri}: only s3:// and local paths are understood")
        object.__setattr__(self, "uri", self.uri.rstrip("/") if is_s3(self.uri) else _absolute(self.uri))

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.uri}/{name}", self.s3, self.fence)

    def parent(self) -> tuple["Folder", str]:
        """The folder that this is in, and its name there."""
        folder, _, name = self.uri.rpartition("/")
        return Folder(folder or "/", self.s3, self.fence), name

    def path(self, name: str = "") -> str:
        """The file's path as ``filesystem`` wants it."""
        root = self.uri.removeprefix("s3://")
        return f"{root}/{name}" if name else root

    @functools.cached_property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        return self.s3.filesystem() if is_s3(self.uri) else fsspec.filesystem("file")

    @property
    def is_local(self) -> bool:
        return not is_s3(self.uri)

    def names(self) -> list[str]:
        """Names of the files directly in the folder, sorted; empty where there is no such folder."""
        try:
            entries = self.filesystem.ls(self.path(), detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rsplit("/", 1)[-1] for e in entries if e["type"] == "file")

    def exists(self, name: str) -> bool:
        return self.filesystem.exists(self.path(name))

    def read(self, name: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError."""
        return self.filesystem.cat_file(self.path(name))

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """``durable``: on the local disk before this returns. Raises UsageError where the disk is full."""
        self._ask()
        if not self.is_local:
            self.filesystem.pipe_file(self.path(name), data)
            return
        with self._drafted(name, data, durable) as draft:
            draft.replace(self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Write the file if there is none; whether that was so. Of all who try at once, one does.

        Raises NoConditionsError on a store that says that it has no conditional writes; one that has none, and says nothing, lets
        several write: see geoloc.pipeline.lease for how they find out.
        """
        self._ask()
        if self.is_local:
            with self._drafted(name, data, durable=True) as draft:
                try:
                    os.link(draft, self.path(name))
                    return True
                except FileExistsError:  # or it was this very link, and a network lost the answer
                    return self.read(name) == data
                except OSError:  # a file system without links
                    return self._create_in_place(name, data)
        return self._create_on_s3(name, data)

    def _create_on_s3(self, name: str, data: bytes) -> bool:
        attempt = 0
        while True:
            try:
                self.filesystem.pipe_file(self.path(name), data, mode="create")
                return True
            except (NotImplementedError, OSError) as error:
                code = _s3_code(error)
                if isinstance(error, FileExistsError) or code in _THERE:
                    with contextlib.suppress(FileNotFoundError):  # or it was this very request, which was sent again
                        return self.read(name) == data
                    return False
                if isinstance(error, NotImplementedError) or code in _NO_CONDITIONS:
                    raise NoConditionsError(f"{self.uri}: the store has no conditional writes") from error
                attempt += 1
                if attempt == CREATE_ATTEMPTS:  # of what may pass, such as another's writing it at this very moment
                    raise
            time.sleep(CREATE_PAUSE_S)

    def _create_in_place(self, name: str, data: bytes) -> bool:
        try:
            with open(self.path(name), "xb") as file:
                file.write(data)
            return True
        except FileExistsError:
            return False

    @contextlib.contextmanager
    def _drafted(self, name: str, data: bytes, durable: bool) -> Iterator[Path]:
        """A local file's content beside it. Raises UsageError where the disk is full."""
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with draft.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            yield draft
        except OSError as error:
            if error.errno in _FULL:
                raise UsageError(f"{self.uri}: no space is left to write {name} ({error.strerror})") from error
            raise
        finally:
            draft.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove the file; one that is not there is no error."""
        self._ask()
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.path(name))

    def upload(self, local: Path, name: str) -> None:
        """Move a finished local file into the folder."""
        self._ask()
        if self.is_local:
            Path(self.path(name)).parent.mkdir(parents=True, exist_ok=True)
            os.replace(local, self.path(name))
        else:
            self.filesystem.put_file(str(local), self.path(name))
            local.unlink()

    def _ask(self) -> None:
        if self.fence:
            self.fence()

    def check_writable(self, option: str) -> None:
        """Raises UsageError, naming the option, where files cannot be written."""
        try:
            self.write(".geoloc-write-test", bytes(_TEST_BYTES))
            self.delete(".geoloc-write-test")
        except UsageError as error:
            raise UsageError(f"{option} {error}") from error
        except Exception as error:  # whatever the store says, it says that this folder cannot be used
            raise UsageError(f"{option} {self.uri}: cannot write there ({describe(error)})") from error


def _s3_code(error: BaseException) -> str:
    """What S3 called it, where it was S3."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def cache_folder() -> Path:
    """Where a node keeps what it has copied or made: GEOLOC_CACHE, or ~/.cache/geoloc."""
    return Path(os.environ.get("GEOLOC_CACHE") or Path.home() / ".cache" / "geoloc")


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
