"""The archive run: list, load, locate, write, prove, report."""

import functools
import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

import tyro

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.errors import UsageError
from geoloc.estimate.calibration import Calibration, read_calibration
from geoloc.estimate.confidence import Abstention, Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import IndexInfo
from geoloc.photos.selection import ListingOptions
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import connect, make_plan
from geoloc.pipeline.indexes import check_encoder, find_index
from geoloc.pipeline.lock import held
from geoloc.pipeline.models import build_locator, build_reranker, probe_encoder, probe_ranker
from geoloc.pipeline.options import ClusterOptions, PhotoOptions, RankingOptions, parse_parts
from geoloc.pipeline.publication import open_run, publish
from geoloc.pipeline.run import Run
from geoloc.pipeline.settings import SOURCE_SETTINGS, estimate_settings, ranker_settings
from geoloc.pipeline.stages import Stream, Work
from geoloc.ranking.choosers import check_chooser, score_scale
from geoloc.results.export import ExportOptions
from geoloc.results.geoparquet import with_geometry
from geoloc.results.summary import COLUMNS, Summary
from geoloc.schema import MAX_CANDIDATES
from geoloc.storage import Folder, S3Options

log = logging.getLogger("geoloc")


@dataclass(frozen=True)
class ArchiveOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The photos: s3://bucket/prefix, a local folder, or a .csv/.parquet file with a column `uri`."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Run folder, s3:// or local. The same command on the same folder goes on, and later takes up what is new."""
    index: str | None = None
    """Index folder from build_index.py (default: the preset's own gallery of coordinates, where it has one)."""
    preset: str = "geoclip"
    """Models: geoclip (CLIP ViT-L/14 and GeoCLIP's location space), lite (a weak encoder that runs on any CPU), or a
    folder from train_alignment.py."""
    model: str | None = None
    """Another image tower for the preset: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    candidates: int = 20
    """Places retrieved for a photo."""
    chooser: Literal["top1", "density", "verification"] = "top1"
    """How one of them is chosen: the most similar, the densest, or the best match in location space."""
    density_sigma_km: float = 445
    """Width of the density chooser's kernel, km."""
    parts: str | None = None
    """Parts of an aligned vector that references are found by, joined by +, such as image+location (default: all)."""
    ranking: Annotated[RankingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RankingOptions)
    relocate: bool = False
    """Locate photos that carry GPS too (instead of keeping their place), and report the accuracy on them."""
    calibration: str | None = None
    """calibration.json from calibrate.py, or the folder with it: confidences become probabilities. Results that are there
    already are brought up to date, without locating again."""
    min_confidence: str | None = None
    """Answer only where the probability of an error below a threshold is high enough, such as 25km:0.5; other photos are
    `uncertain`, with the estimate kept aside. Needs --calibration."""
    exports: Annotated[ExportOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ExportOptions)
    listing: Annotated[ListingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ListingOptions)
    photos: Annotated[PhotoOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=PhotoOptions)
    cluster: Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ClusterOptions)
    s3: S3Options = field(default_factory=S3Options)

    def check(self) -> None:
        """Raises UsageError for what can be told without looking at any photo."""
        self.photos.check()
        self.listing.check()
        self.exports.check()
        models = preset(self.preset, self.model, self.s3)
        check_chooser(self.chooser, models)
        if self.parts is not None:
            parse_parts(self.parts, models)
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise UsageError(f"--candidates {self.candidates}: must be from 1 to {MAX_CANDIDATES}")
        if self.density_sigma_km <= 0:
            raise UsageError(f"--density-sigma-km {self.density_sigma_km}: must be above 0")
        self.ranking.check(self.candidates, self.s3)
        if self.min_confidence is not None:
            Abstention.parse(self.min_confidence)
            if self.calibration is None:
                raise UsageError(f"--min-confidence {self.min_confidence}: speaks of probabilities; add --calibration")


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
