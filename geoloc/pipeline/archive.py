"""The archive run: list, load, locate, write, prove, report."""

import functools
import logging
from dataclasses import asdict
from datetime import UTC, datetime

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import Calibration, read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import IndexInfo
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import connect, make_plan
from geoloc.pipeline.indexes import check_encoder, find_index
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.pipeline.lock import held
from geoloc.pipeline.models import build_locator, build_reranker, probe_encoder, probe_ranker
from geoloc.pipeline.options import parse_parts
from geoloc.pipeline.publication import open_run, publish
from geoloc.pipeline.run import Run
from geoloc.pipeline.settings import SOURCE_SETTINGS, estimate_settings, ranker_settings
from geoloc.pipeline.stages import Stream, Work
from geoloc.ranking.choosers import score_scale
from geoloc.results.geoparquet import with_geometry
from geoloc.results.summary import COLUMNS, Summary
from geoloc.storage import Folder

log = logging.getLogger("geoloc")


def geotag_archive(options: ArchiveOptions) -> int:
    """Run to the end; returns the process's exit status. Raises UsageError where there is something to be put right."""
    options.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    with held(folder):
        return _run(options, open_run(folder))


def _run(options: ArchiveOptions, run: Run) -> int:
    source = Source(options.source, options.s3, options.listing)
    models = preset(options.preset, options.model, options.s3)
    index, info = find_index(options.index, models, options.candidates, run.folder)

    connect()
    plan = make_plan(options.cluster, ranker=options.ranking.ranker is not None)
    encoder = probe_encoder(models)
    check_encoder(index, info, models, encoder.fingerprint)
    ranker = options.ranking.model(options.s3) if options.ranking.ranker else None
    facts = probe_ranker(ranker) if ranker else None
    settings = _settings(options, models, encoder.fingerprint, info)
    if facts:
        settings |= ranker_settings(options.ranking, options.candidates, options.s3, facts.fingerprint)
    calibration = _calibration(options, settings)
    run.settle(settings)
    confidence = _confidence(options, models, calibration)
    log.info("Confidences: %s", f"calibrated by {options.calibration}" if calibration else "uncalibrated")
    run.take_up(source, options.photos.retry_kinds())
    _bring_up_to_date(run, confidence)
    load = {"keep_located": not options.relocate, "picture_view": facts.view if facts else None}
    build_ranker = None
    if ranker:
        rerank = options.ranking.rerank(options.candidates, options.s3, score_scale(options.chooser, models))
        build_ranker = functools.partial(build_reranker, ranker, index, rerank, confidence)
    stream = Stream(
        run,
        load=options.photos.load_options(encoder.view, options.s3, **load),
        build_model=functools.partial(build_locator, _locator_options(options, models, index, confidence)),
        build_ranker=build_ranker,
        finish=with_geometry,
        plan=plan,
        max_failing_share=options.photos.max_failing_share,
    )
    work = stream.work()
    if not work.photos:
        log.info("Nothing to do: every photo has its result")
    return _finish(options, run, work, source.root)


def _locator_options(options: ArchiveOptions, models: Preset, index: Folder, confidence: Confidence) -> LocatorOptions:
    return LocatorOptions(
        models,
        index,
        options.candidates,
        options.chooser,
        options.density_sigma_km,
        parse_parts(options.parts, models) if options.parts else PARTS,
        # with a ranker they are about its scores
        None if options.ranking.ranker else confidence.calibration,
        None if options.ranking.ranker else confidence.abstention,
        ranked=options.ranking.ranker is not None,
    )


def _calibration(options: ArchiveOptions, settings: dict) -> Calibration | None:
    if options.calibration is None:
        return None
    calibration = read_calibration(options.calibration, options.s3)
    estimates = {name: value for name, value in settings.items() if name not in SOURCE_SETTINGS}
    calibration.check(estimates, f"--calibration {options.calibration}")
    return calibration


def _confidence(options: ArchiveOptions, models: Preset, calibration: Calibration | None) -> Confidence:
    abstention = Abstention.parse(options.min_confidence) if options.min_confidence else None
    return Confidence(score_scale(options.ranking.ranker or options.chooser, models), calibration, abstention)


def _bring_up_to_date(run: Run, confidence: Confidence) -> None:
    """Give the results that are there the confidences that new ones will have: it takes no model, only their candidates.

    What is cut off here starts again with any later run, because the record names no confidence until all is done.
    """
    now = {
        "calibration": confidence.calibration.fingerprint if confidence.calibration else None,
        "min_confidence": asdict(confidence.abstention) if confidence.abstention else None,
        "evidence": confidence.calibration.evidence if confidence.calibration else None,
    }
    names = run.parts.names()
    if run.record().get("confidence", None if names else now) != now:
        log.info("Bringing the confidences of the results up to date")
        run.no_success()
        run.write_record(confidence=None)
        for name in names:
            run.parts.write(name, with_geometry(confidence.renew(run.parts.read(name))))
    run.write_record(confidence=now)


def _settings(options: ArchiveOptions, models: Preset, encoder: str, info: IndexInfo) -> dict:
    """What decides the results; a run goes on only with the same."""
    return {
        "source": Folder(options.source).uri,
        "relocate": options.relocate,
        "max_photo_mb": options.photos.max_photo_mb,
        "max_megapixels": options.photos.max_megapixels,
        "exact_decode": options.photos.exact_decode,
    } | estimate_settings(options, models, encoder, info)


def _finish(options: ArchiveOptions, run: Run, work: Work, root: str) -> int:
    missing = run.reconcile()
    summary = Summary.of(run.parts.tables(COLUMNS))
    run.write_record(
        options=asdict(options),
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
