"""The indexes that a recipe searches: found, checked against its encoder, and brought to this machine."""

import logging
from collections.abc import Sequence

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.index.store import GALLERY_ENCODER, IndexInfo, check_index, publish, read_info
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")

GALLERY = "gallery"
"""In place of an index: the encoder's own."""


def check_indexes(uris: Sequence[str], config: EncoderConfig, candidates: int, s3: S3Options) -> list[IndexInfo | None]:
    """Of the indexes named; None for the encoder's own gallery, which is to serve where none is named, or ``gallery`` is.

    Raises UsageError where the encoder or the number of candidates does not go with one, or there is no such gallery.
    """
    if len({uri if uri == GALLERY else Folder(uri, s3).uri for uri in uris}) < len(uris):
        raise UsageError(f"--index {' '.join(uris)}: names one twice")
    infos = [_check(uri, config, s3) for uri in uris or [GALLERY]]
    if None not in infos:
        _check_rows(infos, candidates)
    return infos


def find_indexes(
    uris: Sequence[str], config: EncoderConfig, candidates: int, made_in: Folder
) -> list[tuple[Folder, IndexInfo]]:
    """The indexes named. The encoder's own gallery is made once, in ``made_in``, where all nodes find it.

    Raises UsageError as ``check_indexes``.
    """
    found = []
    for uri, info in zip(uris or [GALLERY], check_indexes(uris, config, candidates, made_in.s3), strict=True):
        folder = Folder(uri, made_in.s3) if info else _gallery(config, made_in)
        found.append((folder, info or _checked(read_info(folder), uri, config)))
        check_index(folder)
    _check_rows([info for _, info in found], candidates)
    return found


def _check(uri: str, config: EncoderConfig, s3: S3Options) -> IndexInfo | None:
    if uri != GALLERY:
        return _checked(read_info(Folder(uri, s3)), uri, config)
    if not config.has_location_space:
        raise UsageError(f"--index: encoder {config.name} has no gallery of its own; make an index with build_index.py")
    return None


def _checked(info: IndexInfo, uri: str, config: EncoderConfig) -> IndexInfo:
    if info.weights == GALLERY_ENCODER and not config.geoclip_head:
        raise UsageError(f"--index {uri}: is a gallery of {GALLERY_ENCODER} vectors; it needs --encoder geoclip")
    return info


def _check_rows(infos: Sequence[IndexInfo], candidates: int) -> None:
    rows = sum(info.rows for info in infos)
    if candidates > rows:
        raise UsageError(f"--candidates {candidates}: the index has only {rows} rows")


def check_encoder(folder: Folder, info: IndexInfo, config: EncoderConfig, fingerprint: str) -> None:
    """Raises UsageError where photos would be encoded otherwise than the index's were."""
    if info.weights not in (fingerprint, GALLERY_ENCODER):
        raise UsageError(
            f"--index {folder.uri}: was built with encoder {info.encoder}, model {info.model} (weights {info.weights[:8]}), "
            f"not with {config.name}, {config.model} ({fingerprint[:8]}); rebuild it or name its encoder"
        )


def _gallery(config: EncoderConfig, made_in: Folder) -> Folder:
    gallery = made_in / "gallery"
    if not gallery.exists("index.json"):
        log.info("Encoding the encoder's gallery of coordinates into %s", gallery.uri)
        from geoloc.index.gallery import write_gallery  # needs torch (geoloc.recipes.stage)

        publish(gallery, lambda draft: write_gallery(draft, config))
    return gallery
