"""The run that makes a ranker's training set: query photos through the archive's own loading and retrieval."""

import functools
import logging
from collections import Counter
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.errors import UsageError
from geoloc.estimate.options import LocatorOptions
from geoloc.photos.sources import Source
from geoloc.photos.views import View
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.job_options import GeoRankingJobOptions
from geoloc.pipeline.lease import leased
from geoloc.pipeline.models import probe_encoder
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.ranking.options import GeoRankingOptions, part_rows
from geoloc.recipes.method import RETRIEVER, Method
from geoloc.recipes.stage import Answer, Stage
from geoloc.schema import GEORANKING
from geoloc.storage import Folder, describe

log = logging.getLogger("geoloc")

PARTS, PHOTOS = "georanking", "photos.parquet"
PUBLISHED = ("img_id", "gps", "ref_gps", "ref_img_id", "ref_texts")
_NOTHING = View(1)
"""What the encoder looks at where there is none."""


def build_georanking(options: GeoRankingJobOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with leased(folder, options.cluster.wait_minutes) as folder:
        return _run(options, Run(folder, PARTS, GEORANKING))


def _run(options: GeoRankingJobOptions, run: Run) -> int:
    settings = {"source": Folder(options.source).uri, "images": options.images} | asdict(options.rows)
    source, method = Source(options.images or options.source, options.s3, options.listing), None
    if options.images:
        build = functools.partial(_build_published, _parent(options), Folder(options.images, options.s3), options.rows)
    else:
        method = Method.find(options.read_recipe(), run.folder)
        build = functools.partial(_build_retrieved, method.locator_options(), options.rows)
    connect()
    placement = Placement(options.cluster, [Stage(RETRIEVER, build, gpu_calls=2, whole_index=True)])
    check_seen(
        run.folder,
        {"--images" if options.images else "SOURCE": source.place, "--index": method and method.indexes[0].uri},
    )
    if method:
        encoder = probe_encoder(method.config)
        method.check_encoder(encoder.weights["encoder"])
        settings |= {"weights": encoder.weights["encoder"], "index": method.index_fingerprint}
        run.settle(settings | {"parts": method.recipe.retrieval.parts})
        view = encoder.view
    else:
        run.settle(settings)
        source, view = _published(options, run), _NOTHING
    run.take_up(source, options.photos.retry_kinds())
    stream = Stream(
        run,
        load=options.photos.load_options(view, options.s3, need_position=True, thumbnail_px=options.rows.picture_px),
        placement=placement,
        max_failing_share=options.photos.max_failing_share,
        max_part_rows=part_rows(options.rows.picture_px, 1_024),
    )
    for line in stream.work().lines():
        log.info("%s", line)
    if missing := run.reconcile():
        log.error("%s photos were not read; run the same command again to go on", f"{missing:,}")
        return 1
    counts = Counter()
    for table in run.parts.tables(["status", "error_kind"]):
        counts.update(pc.coalesce(table["error_kind"], table["status"]).to_pylist())
    run.write_record(counts=dict(counts))
    log.info("Training set: %s", ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()))
    if not counts["ready"]:
        log.error("No photo could be used")
        return 1
    run.succeed(dict(counts))
    log.info("Train a ranker on it: python jobs/train_ranker.py %s OUTPUT", run.folder.uri)
    return 0


def _build_retrieved(retrieval: LocatorOptions, options: GeoRankingOptions, device: str, threads: int) -> Answer:
    from geoloc.encoders.image import ImageEncoder
    from geoloc.estimate.retriever import Retriever
    from geoloc.index.store import local_copy
    from geoloc.ranking.georanking import GeoRanking, Retrieved

    for index in retrieval.indexes:
        local_copy(index, thumbnails=True)
    retriever = Retriever(ImageEncoder(retrieval.config, device, threads), retrieval.indexes)
    return GeoRanking(Retrieved(retriever, options, retrieval.parts), options).build


def _build_published(
    table: tuple[Folder, str], images: Folder, options: GeoRankingOptions, device: str, threads: int
) -> Answer:
    from geoloc.ranking.georanking import GeoRanking, Published

    return GeoRanking(Published(*table, images, options), options).build


def _parent(options: GeoRankingJobOptions) -> tuple[Folder, str]:
    parent, _, name = Folder(options.source, options.s3).uri.rpartition("/")
    return Folder(parent, options.s3), name


def _published(options: GeoRankingJobOptions, run: Run) -> Source:
    """The query photos of a published table, as a source of photos; made once."""
    folder, name = _parent(options)
    if not run.folder.exists(PHOTOS):
        try:
            with folder.filesystem.open(folder.path(name), "rb") as file:
                table = pq.read_table(file, columns=list(PUBLISHED))
            images = Folder(options.images, options.s3).uri
            gps = table["gps"].combine_chunks()
            columns = {"uri": [f"{images}/{image}" for image in table["img_id"].to_pylist()]}
            columns |= {"lat": pc.list_element(gps, 0), "lon": pc.list_element(gps, 1)}
        except (OSError, pa.ArrowException) as error:
            raise UsageError(
                f"SOURCE {options.source}: is no table with the columns {', '.join(PUBLISHED)} ({describe(error)})"
            ) from error
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        run.folder.write(PHOTOS, sink.getvalue().to_pybytes())
    return Source(f"{run.folder.uri}/{PHOTOS}", options.s3)
