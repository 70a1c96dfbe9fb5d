"""The archive run: list, load, locate, write, prove, report."""

import functools
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.estimate.abstention import Abstention
from geoloc.estimate.calibration import Calibration, read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import IndexInfo
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import Plan, connect, make_plan
from geoloc.pipeline.indexes import check_encoder, find_index
from geoloc.pipeline.job_options import ArchiveOptions
from geoloc.pipeline.lock import held
from geoloc.pipeline.models import EncoderFacts, RankerFacts, build_locator, build_reranker, probe_encoder, probe_ranker
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
    loaded = functools.cache(functools.partial(_loaded, options, models, index, info))
    # a run that goes on has its models on record: they are loaded, and compared, when there are photos for them
    before = run.record().get("settings") if run.manifest.generations else None
    fingerprints = loaded().fingerprints if before is None else (before.get("encoder"), before.get("ranker"))
    settings = _settings(options, models, info, *fingerprints)
    calibration = _calibration(options, settings)
    run.settle(settings)
    confidence = _confidence(options, models, calibration)
    log.info("Confidences: %s", f"calibrated by {options.calibration}" if calibration else "uncalibrated")

    def approve() -> None:
        run.settle(_settings(options, models, info, *loaded().fingerprints))

    run.take_up(source, options.photos.retry_kinds(), approve)
    left = run.pending()[1]
    if left:
        approve()
    _bring_up_to_date(run, confidence)
    if not left:
        log.info("Nothing to do: every photo has its result")
    work = _stream(options, run, models, index, loaded(), confidence).work() if left else Work()
    return _finish(options, run, work, source.root)


@dataclass(frozen=True)
class _Models:
    """What was learned of them by loading them once, and where they are to run."""

    plan: Plan
    encoder: EncoderFacts
    ranker: RankerFacts | None

    @property
    def fingerprints(self) -> tuple[str, str | None]:
        return self.encoder.fingerprint, self.ranker and self.ranker.fingerprint


def _loaded(options: ArchiveOptions, models: Preset, index: Folder, info: IndexInfo) -> _Models:
    """Raises UsageError where a model, or room for it, cannot be had, or it is not the index's."""
    connect()
    plan = make_plan(options.cluster, ranker=options.ranking.ranker is not None)
    encoder = probe_encoder(models)
    check_encoder(index, info, models, encoder.fingerprint)
    return _Models(plan, encoder, probe_ranker(options.ranking.model(options.s3)) if options.ranking.ranker else None)


def _stream(
    options: ArchiveOptions, run: Run, models: Preset, index: Folder, loaded: _Models, confidence: Confidence
) -> Stream:
    build_ranker = None
    if options.ranking.ranker:
        rerank = options.ranking.rerank(options.candidates, options.s3, score_scale(options.chooser, models))
        ranker = options.ranking.model(options.s3)
        build_ranker = functools.partial(build_reranker, ranker, index, rerank, confidence)
    load = {"keep_located": not options.relocate, "picture_view": loaded.ranker and loaded.ranker.view}
    return Stream(
        run,
        load=options.photos.load_options(loaded.encoder.view, options.s3, **load),
        build_model=functools.partial(build_locator, _locator_options(options, models, index, confidence)),
        build_ranker=build_ranker,
        finish=with_geometry,
        plan=loaded.plan,
        max_failing_share=options.photos.max_failing_share,
    )


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


def _settings(options: ArchiveOptions, models: Preset, info: IndexInfo, encoder: str, ranker: str | None) -> dict:
    """What decides the results; a run goes on only with the same. ``encoder`` and ``ranker`` are fingerprints."""
    ranked = {}
    if options.ranking.ranker:
        ranked = ranker_settings(options.ranking, options.candidates, options.s3, ranker)
    return (
        {
            "source": Folder(options.source).uri,
            "relocate": options.relocate,
            "max_photo_mb": options.photos.max_photo_mb,
            "max_megapixels": options.photos.max_megapixels,
            "exact_decode": options.photos.exact_decode,
        }
        | estimate_settings(options, models, encoder, info)
        | ranked
    )


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
