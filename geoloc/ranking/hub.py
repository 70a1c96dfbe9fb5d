"""Adapters on the model hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from geoloc.errors import UsageError
from geoloc.ranking.options import CONFIG
from geoloc.storage import Folder, S3Options, describe

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PLACES = ("", "checkpoints/")
"""Where in its repository an adapter lies; in GeoRanker's it is the second."""


@dataclass(frozen=True)
class HubFolder:
    """A folder of a repository on the model hub, at one revision. Every machine that reads it fetches it for itself."""

    repository: str
    revision: str | None
    inside: str

    @property
    def uri(self) -> str:
        return f"{self.repository}@{self.revision}"

    def read(self, name: str) -> bytes:
        """The file's bytes, from the hub's local cache where they are there. Raises OSError, as a FileNotFoundError too."""
        return self.path(name).read_bytes()

    def path(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download  # slow to import
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(hf_hub_download(self.repository, self.inside + name, revision=self.revision))
        except EntryNotFoundError as error:
            raise FileNotFoundError(str(error)) from error


def is_on_hub(name: str) -> bool:
    """Whether a model or adapter of that name is to be looked for there: it is like ``organisation/name``, and no folder."""
    return bool(_NAME.fullmatch(name)) and not Path(name).expanduser().exists()


def adapter_folder(name: str, s3: S3Options) -> Folder | HubFolder:
    """Where ``--ranker-adapter`` is: a folder, or else a repository of the hub, ``@`` a revision or the newest. Raises UsageError."""
    repository, _, revision = name.partition("@")
    if not is_on_hub(repository):
        return Folder(name, s3)
    for inside in _PLACES:
        try:
            path = HubFolder(repository, revision or None, inside).path(CONFIG)
            return HubFolder(repository, path.parts[path.parts.index("snapshots") + 1], inside)
        except Exception as error:  # no network, no such repository, no access: a hub fails in many ways
            reason = error
    raise UsageError(
        f"--ranker-adapter {name}: is no folder here, and could not be had from the model hub ({describe(reason)}). Where "
        f"there is a network: `hf download {name} --local-dir FOLDER`, then name the folder in it that holds {CONFIG}"
    )
