"""The index run: reference photos through the archive's own loading and encoding, then one pass into an index folder."""

import functools
import logging
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.encoders.config import EncoderConfig, encoder_config
from geoloc.errors import UsageError
from geoloc.index.build import write_index
from geoloc.index.rows import in_order, indexed_rows
from geoloc.index.store import IndexInfo, publish, read_info
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.job_options import IndexOptions
from geoloc.pipeline.lease import leased
from geoloc.pipeline.models import probe_encoder
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.ranking.options import part_rows
from geoloc.recipes.method import Facts
from geoloc.recipes.stage import Answer, Stage
from geoloc.results.parts import Parts
from geoloc.schema import REFERENCE
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

GALLERY = "gallery"


def build_index(options: IndexOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.photos.check()
    options.listing.check()
    if options.picture_px < 0:
        raise UsageError(f"--picture-px {options.picture_px}: must not be below 0")
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with leased(folder, options.cluster.wait_minutes) as folder:
        if folder.exists("index.json"):
            info = read_info(folder)
            log.info(
                "The index is complete: %s rows in %s. To build it anew, use another folder",
                f"{info.rows:,}",
                folder.uri,
            )
            return 0
        models = encoder_config(options.encoder, options.model, options.s3)
        if options.vectors == "multimodal" and models.alignment is None:
            raise UsageError(f"--vectors multimodal: encoder {models.name} has one space only; use a trained alignment")
        if options.source == GALLERY:
            _announce(folder, publish(folder, lambda draft: _gallery(draft, models)))
            return 0
        return _run(options, models, folder)


def _gallery(draft: Path, models: EncoderConfig) -> IndexInfo:
    if not models.has_location_space:
        raise UsageError(f"SOURCE gallery: encoder {models.name} has none")
    from geoloc.index.gallery import write_gallery  # needs torch (geoloc.recipes.stage)

    return write_gallery(draft, models)


def _run(options: IndexOptions, models: EncoderConfig, folder: Folder) -> int:
    connect()
    source = Source(options.source, options.photos_s3, options.listing)
    build = functools.partial(_build_referencer, models, options.vectors == "multimodal")
    stage = Stage("encoder", build, gpu_calls=2)
    placement = Placement(options.cluster, [stage])
    check_seen(folder, {"SOURCE": source.place})
    encoder = probe_encoder(models)
    run = Run(folder / "build", "references", REFERENCE)
    run.settle(
        {
            "source": Folder(options.source).uri,
            "encoder": models.name,
            "model": options.model,
            "weights": encoder.weights["encoder"],
            "vectors": options.vectors,
            "picture_px": options.picture_px,
            "max_photo_mb": options.photos.max_photo_mb,
            "max_megapixels": options.photos.max_megapixels,
            "exact_decode": options.photos.exact_decode,
        }
    )
    run.take_up(source, options.photos.retry_kinds())
    stream = Stream(
        run,
        load=options.photos.load_options(
            encoder.view, options.photos_s3, need_position=True, thumbnail_px=options.picture_px
        ),
        placement=placement,
        max_failing_share=options.photos.max_failing_share,
        max_part_rows=part_rows(options.picture_px, 4_096),
    )
    work = stream.work()
    missing = run.reconcile()
    if missing:
        log.error("%s photos were not read; run the same command again to go on", f"{missing:,}")
        return 1
    rows = indexed_rows(run.parts)
    failed = _failed(run.parts)
    if not rows:
        raise UsageError(f"SOURCE {options.source}: no photo could be indexed: {_kinds(failed)}")
    _announce(
        folder, publish(folder, lambda draft: _assemble(draft, options, models, encoder, run.parts, failed, rows))
    )
    if failed.num_rows:
        log.info("Skipped %s photos (%s): see skipped.parquet there", f"{failed.num_rows:,}", _kinds(failed))
    for line in work.lines():
        log.info("%s", line)
    folder.filesystem.rm(run.folder.path(), recursive=True)
    return 0


def _build_referencer(models: EncoderConfig, multimodal: bool, device: str, threads: int) -> Answer:
    from geoloc.index.reference import Referencer

    return Referencer(models, device, threads, multimodal).refer


def _failed(parts: Parts) -> pa.Table:
    tables = parts.tables(["id", "uri", "status", "error_kind", "error"])
    return pa.concat_tables(table.filter(pc.equal(table["status"], "failed")) for table in tables).sort_by("id")


def _kinds(failed: pa.Table) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in Counter(failed["error_kind"].to_pylist()).most_common())


def _assemble(
    draft: Path, options: IndexOptions, models: EncoderConfig, encoder: Facts, parts: Parts, failed: pa.Table, rows: int
) -> IndexInfo:
    if failed.num_rows:
        pq.write_table(failed.drop_columns(["id", "status"]), draft / "skipped.parquet", compression="zstd")
    weights = encoder.weights["encoder"]
    info = IndexInfo("photos", weights, models.name, models.model, rows, encoder.dimension, options.vectors)
    return write_index(draft, info, in_order(parts, draft), options.ann)


def _announce(folder: Folder, info: IndexInfo) -> None:
    log.info("Index: %s rows of %s dimensions in %s", f"{info.rows:,}", info.dimension, folder.uri)
    if info.ann:
        log.info("Approximate search: %s", ", ".join(f"{key} {value}" for key, value in info.ann.items()))
