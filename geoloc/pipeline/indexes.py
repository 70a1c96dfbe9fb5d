"""The index that a run searches: found, checked against the models, and brought to this machine."""

import logging

from geoloc.encoders.presets import Preset
from geoloc.errors import UsageError
from geoloc.index.store import GALLERY_ENCODER, IndexInfo, local_copy, publish, read_info
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")


def check_index(uri: str | None, models: Preset, candidates: int, s3: S3Options) -> IndexInfo | None:
    """Of the index named; None where none is, and the preset's own gallery is to serve.

    Raises UsageError where the preset or the number of candidates does not go with the index, or there is no such gallery.
    """
    if uri is not None:
        return _checked(read_info(Folder(uri, s3)), uri, models, candidates)
    if not models.has_location_space:
        raise UsageError(f"--index: preset {models.name} has no gallery of its own; make an index with build_index.py")
    return None


def find_index(uri: str | None, models: Preset, candidates: int, output: Folder) -> tuple[Folder, IndexInfo]:
    """The index named, or the preset's own gallery, which is made once, in ``output``, where all nodes find it.

    Raises UsageError as ``check_index``.
    """
    info = check_index(uri, models, candidates, output.s3)
    folder = Folder(uri, output.s3) if info else _gallery(models, output)
    info = info or _checked(read_info(folder), uri, models, candidates)
    local_copy(folder, verify=True)
    return folder, info


def _checked(info: IndexInfo, uri: str | None, models: Preset, candidates: int) -> IndexInfo:
    if info.encoder == GALLERY_ENCODER and not models.geoclip_head:
        raise UsageError(f"--index {uri}: is a gallery of {GALLERY_ENCODER} vectors; it needs --preset geoclip")
    if candidates > info.rows:
        raise UsageError(f"--candidates {candidates}: the index has only {info.rows} rows")
    return info


def check_encoder(folder: Folder, info: IndexInfo, models: Preset, fingerprint: str) -> None:
    """Raises UsageError where photos would be encoded otherwise than the index's were."""
    if info.encoder not in (fingerprint, GALLERY_ENCODER):
        raise UsageError(
            f"--index {folder.uri}: was built with preset {info.preset}, model {info.model} (weights {info.encoder[:8]}), "
            f"not with {models.name}, {models.model} ({fingerprint[:8]}); rebuild it or name its preset"
        )


def _gallery(models: Preset, output: Folder) -> Folder:
    gallery = output / "gallery"
    if not gallery.exists("index.json"):
        log.info("Encoding the preset's gallery of coordinates into %s", gallery.uri)
        from geoloc.index.gallery import write_gallery  # needs torch (geoloc.pipeline.models)

        publish(gallery, lambda draft: write_gallery(draft, models))
    return gallery
