"""The archive run: check, list, plan, stream, prove, report."""

import functools
import logging
from dataclasses import asdict
from datetime import UTC, datetime

from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.pipeline.lock import held
from geoloc.pipeline.models import probe
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.publication import open_run, publish
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream, Work
from geoloc.recipes.method import Facts, Method
from geoloc.recipes.reading import recipe_to_dict
from geoloc.recipes.recipe import Recipe
from geoloc.results.geoparquet import with_geometry
from geoloc.results.summary import COLUMNS, Summary
from geoloc.storage import Folder

log = logging.getLogger("geoloc")


def geotag_archive(options: ArchiveOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    recipe = options.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with held(folder):
        return _run(options, recipe, open_run(folder))


def _run(options: ArchiveOptions, recipe: Recipe, run: Run) -> int:
    source, method = Source(options.source, options.s3, options.listing), Method.find(recipe, run.folder)
    # once, and only if it has to be
    load = functools.cache(functools.partial(_place_and_probe, options, method, run.folder, source))

    def settle(weights: dict[str, str]) -> None:
        method.check_calibration(weights)
        run.settle(_source_settings(options) | {"method": method.settings(weights)})

    settle(_weights_on_record(run) or load()[1].weights)
    log.info("Confidences: %s", f"calibrated by {recipe.calibration}" if recipe.calibration else "uncalibrated")
    run.take_up(source, options.photos.retry_kinds(), approve=lambda: settle(load()[1].weights))
    if left := run.pending()[1]:
        settle(load()[1].weights)
    confidence = method.confidence
    run.write_record(recipe=recipe_to_dict(method.recipe), score_scale=confidence.scale)
    run.renew("confidence", confidence.state(), lambda results: with_geometry(confidence.renew(results)))
    work = _stream(options, run, *load()).work() if left else _nothing_to_do()
    return _finish(options, run, work, source.root)


def _place_and_probe(
    options: ArchiveOptions, method: Method, folder: Folder, source: Source
) -> tuple[Placement, Facts]:
    """Raises UsageError where a model, or room for it, cannot be had, or it is not the index's."""
    connect()
    placement = Placement(options.cluster, method.stages())
    check_seen(folder, {"SOURCE": source.place, "--index": method.index.uri})
    return placement, probe(method)


def _weights_on_record(run: Run) -> dict[str, str] | None:
    """Of a run that goes on: its models are loaded, and compared, when there are photos for them."""
    settings = run.record().get("settings") if run.manifest.generations else None
    return settings and settings.get("method", {}).get("weights")


def _source_settings(options: ArchiveOptions) -> dict:
    """Which photos a run looks at, and how closely: they decide its results, with the method's settings."""
    photos = {name: getattr(options.photos, name) for name in ("max_photo_mb", "max_megapixels", "exact_decode")}
    return {"source": Folder(options.source).uri, "relocate": options.relocate} | photos


def _stream(options: ArchiveOptions, run: Run, placement: Placement, facts: Facts) -> Stream:
    load = {"keep_located": not options.relocate, "picture_view": facts.picture_view}
    return Stream(
        run,
        load=options.photos.load_options(facts.view, options.s3, **load),
        placement=placement,
        finish=with_geometry,
        max_failing_share=options.photos.max_failing_share,
    )


def _nothing_to_do() -> Work:
    log.info("Nothing to do: every photo has its result")
    return Work()


def _finish(options: ArchiveOptions, run: Run, work: Work, root: str) -> int:
    missing = run.reconcile()
    summary = Summary.of(run.parts.tables(COLUMNS))
    run.write_record(
        options=options.to_dict(),
        root=root,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=dict(summary.statuses),
        missing=missing,
        last_work=asdict(work) if work.photos else run.record().get("last_work", asdict(work)),
    )
    if not missing:
        run.succeed(dict(summary.statuses))
    for line in [*summary.lines(), *work.lines()]:
        log.info("%s", line)
    log.info("Results: %s", run.parts.folder.uri)
    publish(run, options.exports, summary)
    if missing:
        log.error("%s photos have no result; run the same command again to go on", f"{missing:,}")
        return 1
    if summary.statuses["failed"] == summary.rows:
        log.error("No photo could be used: see the failures above and in the report")
        return 1
    return 0
