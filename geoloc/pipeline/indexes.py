"""The index that a run searches: found, checked against the models, and brought to this machine."""

import logging

from geoloc.encoders.presets import Preset
from geoloc.errors import UsageError
from geoloc.index.store import GALLERY_ENCODER, IndexInfo, local_copy, publish, read_info
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")


def check_index(uri: str | None, models: Preset, candidates: int, s3: S3Options) -> None:
    """Raises UsageError where the preset or the number of candidates does not go with the index named, or, where none is,
    the preset has no gallery of its own."""
    if uri is None and not models.has_location_space:
        raise UsageError(f"--index: preset {models.name} has no gallery of its own; make an index with build_index.py")
    if uri is not None:
        _check_info(read_info(Folder(uri, s3)), uri, models, candidates)


def find_index(uri: str | None, models: Preset, candidates: int, output: Folder) -> tuple[Folder, IndexInfo]:
    """The index named, or the preset's own gallery, which is made once, in ``output``, where all nodes find it.

    Raises UsageError as ``check_index``.
    """
    check_index(uri, models, candidates, output.s3)
    folder = Folder(uri, output.s3) if uri else _gallery(models, output)
    info = read_info(folder)
    local_copy(folder, verify=True)
    _check_info(info, uri, models, candidates)
    return folder, info


def _check_info(info: IndexInfo, uri: str | None, models: Preset, candidates: int) -> None:
    if info.encoder == GALLERY_ENCODER and not models.geoclip_head:
        raise UsageError(f"--index {uri}: is a gallery of {GALLERY_ENCODER} vectors; it needs --preset geoclip")
    if candidates > info.rows:
        raise UsageError(f"--candidates {candidates}: the index has only {info.rows} rows")


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
