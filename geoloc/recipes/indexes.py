"""The index that a recipe searches: found, checked against its encoder, and brought to this machine."""

import logging

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.index.store import GALLERY_ENCODER, IndexInfo, local_copy, publish, read_info
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")


def check_index(uri: str | None, config: EncoderConfig, candidates: int, s3: S3Options) -> IndexInfo | None:
    """Of the index named; None where none is, and the encoder's own gallery is to serve.

    Raises UsageError where the encoder or the number of candidates does not go with the index, or there is no such gallery.
    """
    if uri is not None:
        return _checked(read_info(Folder(uri, s3)), uri, config, candidates)
    if not config.has_location_space:
        raise UsageError(f"--index: encoder {config.name} has no gallery of its own; make an index with build_index.py")
    return None


def find_index(uri: str | None, config: EncoderConfig, candidates: int, made_in: Folder) -> tuple[Folder, IndexInfo]:
    """The index named, or the encoder's own gallery, which is made once, in ``made_in``, where all nodes find it.

    Raises UsageError as ``check_index``.
    """
    info = check_index(uri, config, candidates, made_in.s3)
    folder = Folder(uri, made_in.s3) if info else _gallery(config, made_in)
    info = info or _checked(read_info(folder), uri, config, candidates)
    local_copy(folder, verify=True)
    return folder, info


def _checked(info: IndexInfo, uri: str | None, config: EncoderConfig, candidates: int) -> IndexInfo:
    if info.weights == GALLERY_ENCODER and not config.geoclip_head:
        raise UsageError(f"--index {uri}: is a gallery of {GALLERY_ENCODER} vectors; it needs --encoder geoclip")
    if candidates > info.rows:
        raise UsageError(f"--candidates {candidates}: the index has only {info.rows} rows")
    return info


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
