"""Where photos come from: an S3 prefix or inventory, a local folder, one photo, a tar file, or a table. Lists, never looks at a photo."""

import functools
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import botocore.exceptions
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.errors import UsageError
from geoloc.photos import images_in_tables, local, sidecars, tables, tars
from geoloc.photos.bucket import Bucket
from geoloc.photos.formats import is_photo, left_out_text, suffix_of
from geoloc.photos.images_in_tables import ImageTable
from geoloc.photos.inventory import Inventory, is_inventory
from geoloc.photos.selection import ListingOptions, TakeoutCopies, litter
from geoloc.schema import LISTING
from geoloc.storage import Folder, S3Options, describe, is_s3, path_of, split_s3, uri_of

BATCH_ROWS = 8_192
TARS_AT_ONCE = 8
WINDOW = 100_000
"""Files of one S3 folder that are held to find what belongs together; names that do stand near each other."""

Files = list[dict]
"""Rows of LISTING."""


@dataclass
class Found:
    """What a listing came upon beside photos; complete once the listing is exhausted."""

    left_out: Counter = field(default_factory=Counter)
    """Files passed over because of their suffix, by suffix."""
    litter: Counter = field(default_factory=Counter)
    """Files passed over because they are litter, by kind."""
    excluded: int = 0
    """By --include and --exclude."""
    duplicates: int = 0
    """Rows of a table whose photo an earlier row names."""
    sidecars: int = 0
    """Of photos that were listed."""
    sidecars_unread: int = 0
    """Of those, that are not asked for."""
    unread_folders: int = 0
    """That could not be listed, or not in full; tar files among them."""
    notes: list[str] = field(default_factory=list)
    """What else there is to say."""

    def lines(self) -> list[str]:
        """For people."""
        files = [f"{self.left_out.total():,} files of other types left out: {left_out_text(self.left_out)}"]
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.litter.most_common())
        lines = files if self.left_out else []
        lines += [f"{self.litter.total():,} files left out as litter: {kinds}"] if self.litter else []
        lines += [f"{self.excluded:,} files left out by --include and --exclude"] if self.excluded else []
        lines += [f"{self.duplicates:,} duplicate rows left out"] if self.duplicates else []
        lines += [f"{self.sidecars:,} sidecars beside photos are read"] if self.sidecars else []
        unread = f"{self.sidecars_unread:,} sidecars beside photos are not read (--sidecars reads positions and times from them)"
        lines += (
            [f"{self.unread_folders:,} folders or tar files could not be read whole"] if self.unread_folders else []
        )
        return lines + ([unread] if self.sidecars_unread else []) + self.notes


@dataclass
class Source:
    """A listing under way."""

    uri: str
    s3: S3Options = field(default_factory=S3Options)
    options: ListingOptions = field(default_factory=ListingOptions)
    found: Found = field(default_factory=Found)
    _folders_like_tars: set[str] = field(default_factory=set, init=False, repr=False)
    """Folders of a bucket that have photos and are called like a tar beside them, which come first."""

    @functools.cached_property
    def root(self) -> str:
        """What the paths of its photos begin with."""
        if self._inventory:
            return f"s3://{self._inventory.bucket}"
        folder = Folder(self.uri, self.s3)
        if self._is_tar:
            return folder.uri
        one_photo = os.path.isfile(path_of(folder.uri)) if folder.is_local else is_photo(self.uri)
        return folder.parent()[0].uri if self._is_table or one_photo else folder.uri

    @property
    def tells_what_is_gone(self) -> bool:
        """Whether a photo that has not been listed, now that the listing is exhausted, is there no more."""
        options = self.options
        return not (options.keep_removed or options.limit or options.sample or self.found.unread_folders)

    def takes(self, uri: str) -> bool:
        """Whether the globs let a photo pass."""
        return self.options.takes(self._below(uri))

    def list(self) -> Iterator[pa.RecordBatch]:
        """Batches of LISTING. Raises UsageError where the source cannot be listed or its table cannot be read."""
        rows = self.options.some(self._rows())
        return (pa.RecordBatch.from_pylist(batch, LISTING) for batch in _batches(rows))

    def _rows(self) -> Iterator[dict]:
        if self._is_table:
            return self._table()
        if self._inventory:
            return self._photos_with_sidecars(_by_folder(self._inventory.objects(self._folders_like_tars)))
        return self._bucket() if is_s3(self.uri) else self._folder()

    @functools.cached_property
    def _inventory(self) -> Inventory | None:
        return Inventory.open(self.uri, self.s3) if is_inventory(self.uri) else None

    @property
    def place(self) -> str | None:
        """What whoever reads its photos has to reach; None for a table, whose photos are anywhere."""
        return None if self._is_table else Folder(self.uri, self.s3).uri

    @property
    def _is_table(self) -> bool:
        return self.uri.rstrip("/").lower().endswith(tables.SUFFIXES)

    @property
    def _is_tar(self) -> bool:
        return self.uri.lower().endswith(tars.SUFFIX) and not os.path.isdir(path_of(Folder(self.uri).uri))

    def _below(self, uri: str) -> str:
        return uri.removeprefix(self.root.rstrip("/") + "/")

    def _photos_with_sidecars(self, folders: Iterable[Files]) -> Iterator[dict]:
        """Photos, each with its sidecars, of the files folder by folder."""
        copies = TakeoutCopies()
        for files in folders:
            for row in self._photos_of(files):
                if self.options.litter or not copies.hold(row):
                    yield row
        rest, dropped = copies.rest()
        self.found.litter.update({"Takeout's copies in albums": dropped} if dropped else {})
        yield from rest

    def _photos_of(self, files: Files) -> Iterator[dict]:
        """Of the files of one folder."""
        photos, beside = [], {}
        folder = files[0]["uri"].rpartition("/")[0] if files else ""
        if folder.lower().endswith(tars.SUFFIX):
            self._folders_like_tars.add(folder)
        tar_rows = [row for row in files if self._is_listed_tar(row)]
        with ThreadPoolExecutor(TARS_AT_ONCE) as pool:
            read = functools.partial(tars.members_of, filesystem=Folder(self.uri, self.s3).filesystem)
            for row, members in zip(tar_rows, pool.map(read, tar_rows), strict=True):
                yield from self._photos_in(row, members)
        for row in files:
            path = self._below(row["uri"])
            suffix = suffix_of(path)
            if not self.options.litter and (kind := litter(path)):
                self.found.litter[kind] += 1
            elif self._is_listed_tar(row):
                continue
            elif suffix in sidecars.SUFFIXES:
                beside[path.rsplit("/", 1)[-1].lower()] = row
            elif not is_photo(path):
                self.found.left_out[suffix] += 1
            elif not self.options.takes(path):
                self.found.excluded += 1
            else:
                photos.append(row)
        yield from self._with_sidecars(photos, beside)

    def _is_listed_tar(self, row: dict) -> bool:
        return suffix_of(row["uri"]) == tars.SUFFIX and (self.options.litter or not litter(self._below(row["uri"])))

    def _photos_in(self, tar: dict, members: tars.Members) -> Iterator[dict]:
        """Of the files in a tar; sidecars in it are not read."""
        if members.problem:
            self.found.notes.append(
                f"{tar['uri']}: only {len(members.rows):,} files of it can be listed ({members.problem})"
            )
            self.found.unread_folders += 1
        if members.left_out:
            self.found.notes.append(f"{tar['uri']}: {members.left_out:,} links or sparse files in it are left out")
        if tar["uri"] in self._folders_like_tars:
            self.found.notes.append(f"{tar['uri']}: is left out, because there is a folder of the same name")
            return
        for row in members.rows:
            path = self._below(row["uri"])
            if not self.options.litter and (kind := litter(path)):
                self.found.litter[kind] += 1
            elif not is_photo(path):
                self.found.left_out[suffix_of(path)] += 1
            elif not self.options.takes(path):
                self.found.excluded += 1
            else:
                yield row

    def _with_sidecars(self, photos: Iterable[dict], beside: dict[str, dict]) -> Iterator[dict]:
        unclaimed = set(beside)
        for row in photos:
            found = self._claim(row, beside)
            unclaimed -= {sidecar["uri"].rsplit("/", 1)[-1].lower() for sidecar in found}
            yield row
        self.found.left_out.update(suffix_of(name) for name in unclaimed)

    def _claim(self, row: dict, beside: dict[str, dict]) -> Files:
        """Give a photo its sidecars of those in its folder. Returns them."""
        found = sidecars.sidecars_of(row["uri"].rsplit("/", 1)[-1], beside) if beside else []
        if found and self.options.sidecars:
            self.found.sidecars += len(found)
            row |= {"sidecars": [sidecar["uri"] for sidecar in found], "sidecars_etag": _etag_of(found)}
        elif found:
            self.found.sidecars_unread += len(found)
        return found

    def _folder(self) -> Iterator[dict]:
        root = Folder(self.uri).uri
        if self._is_tar and os.path.isfile(path_of(root)):
            return self._photos_with_sidecars([[local.file_row(path_of(root))]])
        if os.path.isfile(path_of(root)):
            return self._one(uri_of(path_of(root)), local.files_beside(path_of(root)))
        if not os.path.isdir(path_of(root)):
            raise UsageError(f"SOURCE {self.uri}: no such folder")
        return self._photos_with_sidecars(local.walk(path_of(root), self._unread))

    def _unread(self, _: OSError) -> None:
        self.found.unread_folders += 1

    def _one(self, uri: str, files: Files) -> Iterator[dict]:
        """The photo alone, with what lies beside it."""
        beside = {
            file["uri"].rsplit("/", 1)[-1].lower(): file
            for file in files
            if suffix_of(file["uri"]) in sidecars.SUFFIXES
        }
        for row in (file for file in files if file["uri"] == uri):
            self._claim(row, beside)
            yield row

    def _bucket(self) -> Iterator[dict]:
        bucket, key = split_s3(self.uri)
        prefix = key.rstrip("/") + "/" if key.rstrip("/") else ""
        entries = self._entries(bucket, prefix)
        first = next(entries, None)
        if first is not None:
            yield from self._photos_with_sidecars(_by_folder(itertools.chain([first], entries)))
        elif key and not key.endswith("/"):
            if self._is_tar:
                files = [entry for entry in self._entries(bucket, key) if entry["uri"] == self.uri]
                yield from self._photos_with_sidecars([files])
                return
            folder, slash, name = key.rpartition("/")
            stem = folder + slash + sidecars.common_stem(name)
            yield from self._one(self.uri, list(self._entries(bucket, stem)))

    def _entries(self, bucket: str, prefix: str) -> Iterator[dict]:
        try:
            yield from Bucket(self.s3, bucket).objects(prefix)
        except botocore.exceptions.ClientError as error:
            code = error.response["Error"]["Code"]
            hint = {
                "NoSuchBucket": "there is no such bucket",
                "AccessDenied": "these credentials may not list it",
                "InvalidAccessKeyId": "the access key is not known there",
                "SignatureDoesNotMatch": "the secret key is wrong",
            }.get(code, str(error))
            raise UsageError(f"SOURCE {self.uri}: {hint} ({code})") from error
        except botocore.exceptions.BotoCoreError as error:
            raise UsageError(
                f"SOURCE {self.uri}: {describe(error)} (set credentials, --s3.endpoint or --s3.anonymous)"
            ) from error

    def _images_in_table(self) -> ImageTable | None:
        if not self.uri.rstrip("/").lower().endswith(images_in_tables.SUFFIX):
            return None
        try:
            return ImageTable.find(self.uri, self.s3)
        except (OSError, pa.ArrowException, botocore.exceptions.BotoCoreError):  # who reads it for its columns will say
            return None

    def _rows_of(self, images: ImageTable) -> Iterator[dict]:
        """Photos that a table holds itself, with what it knows of them."""
        noted = set()
        for table, places in images.rows():
            columns, notes = tables.known(f"SOURCE {self.uri}", table)
            self.found.notes += [note for note in notes if note not in noted]
            noted.update(notes)
            for row, place in zip(pa.table(columns).to_pylist(), places, strict=True):
                if self.takes(place["uri"]):
                    yield row | place
                else:
                    self.found.excluded += 1

    def _table(self) -> Iterator[dict]:
        """Relative uris start from the file's folder. Local files are looked up, with what lies beside them."""
        if images := self._images_in_table():
            yield from self._rows_of(images)
            return
        table, notes = tables.read_table(self.uri, self.s3)
        self.found.notes += notes
        uris = pa.array([_absolute(self.root, uri) for uri in table["uri"].to_pylist()])
        first = pc.index_in(uris, uris)
        rows = table.set_column(0, "uri", uris).filter(pc.equal(first, pa.array(range(len(uris)), pa.int32())))
        self.found.duplicates += table.num_rows - rows.num_rows
        folders: dict[str, dict[str, dict]] = {}
        for row in (row for batch in rows.to_batches(BATCH_ROWS) for row in batch.to_pylist()):
            if not self.takes(row["uri"]):
                self.found.excluded += 1
            elif is_s3(row["uri"]) or "://" in row["uri"]:
                yield row
            else:
                row |= local.file_row(path_of(row["uri"])) | {"uri": row["uri"]}
                folder = os.path.dirname(path_of(row["uri"]))
                if folder not in folders:
                    folders = {folder: local.sidecars_in(folder)}  # rows of one folder mostly come together
                self._claim(row, folders[folder])
                yield row


def _absolute(root: str, uri: str) -> str:
    uri = uri.removeprefix("file://")
    uri = os.path.expanduser(uri) if uri.startswith("~") else uri
    return uri if "://" in uri or uri.startswith("/") else f"{root.rstrip('/')}/{uri}"


def _by_folder(entries: Iterable[dict]) -> Iterator[list[dict]]:
    """Entries in the order of their keys, folder by folder, though a folder's keys stand before and behind those of the
    folders in it; a very large folder in stretches of WINDOW."""
    opened: list[tuple[str, list[dict]]] = []
    for entry in entries:
        folder = entry["uri"].rpartition("/")[0]
        while opened and opened[-1][0] != folder and not folder.startswith(opened[-1][0] + "/"):
            yield opened.pop()[1]
        if not opened or opened[-1][0] != folder:
            opened.append((folder, []))
        files = opened[-1][1]
        files.append(entry)
        if len(files) >= WINDOW:
            cut = _between_stems(files)
            yield files[:cut]
            del files[:cut]
    while opened:
        yield opened.pop()[1]


def _between_stems(files: list[dict]) -> int:
    """Where in the second half a name does not begin as the one before."""
    for at in range(len(files) // 2, len(files)):
        stem = files[at - 1]["uri"].rpartition("/")[2].split(".")[0].split("(")[0]
        if not files[at]["uri"].rpartition("/")[2].startswith(stem):
            return at
    return len(files)


def _etag_of(files: list[dict]) -> str:
    text = "\n".join(f"{file['uri']} {file.get('etag')}" for file in files)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _batches(rows: Iterator[dict]) -> Iterator[list[dict]]:
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch
