"""Options of each job. Reading them, and telling what is wrong with them, needs neither Ray nor a model."""

import dataclasses
import logging
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import tyro

from geoloc.context.company import CompanyOptions, read_clock_offsets
from geoloc.errors import UsageError
from geoloc.evaluation.protocol import Protocol
from geoloc.evaluation.recognition import Columns
from geoloc.help import Group
from geoloc.photos.selection import ListingOptions
from geoloc.pipeline.forecast import Prices
from geoloc.pipeline.options import (
    LOCATED_HERE,
    Cluster,
    ClusterOptions,
    Exports,
    Listing,
    LocateOptions,
    PhotoOptions,
    Photos,
)
from geoloc.ranking.options import PICTURE_PX, GeoRankingOptions
from geoloc.recipes.options import RecipeOptions, RetrievalOverrides
from geoloc.recipes.reading import read_recipe
from geoloc.recipes.recipe import Recipe
from geoloc.results.options import ExportOptions
from geoloc.schema import MAX_CANDIDATES
from geoloc.storage import S3Options, SourceS3Options
from geoloc.tracks.reading import read_tracks

log = logging.getLogger("geoloc")

METHOD = (
    *("recipe", "index", "encoder", "model", "candidates", "chooser", "ranker_model", "ranker_adapter"),
    *("generator_model", "generator_endpoint"),
    *("calibration", "min_confidence"),
)
SourceS3 = Annotated[SourceS3Options, tyro.conf.arg(name="source.s3")]
Context = Literal["auto", "off"]
HideBy = Literal["photo", "burst", "day", "trip", "album"]
NEIGHBOURS = "photos that locate each other"
GEORANKING = ("references", "ranked", "picture_px", "twin_cosine")
COMPANY = ("tracks",)
LOCATE = ("images", "recipes", "choosers", "candidates", "parts", "ten_crop")
"""What most runs need of these options."""


SELF = "self"
"""In place of an index: the archive's own photos that carry their place."""


@dataclass(frozen=True)
class TrackOptions:
    tracks: str | None = None
    """Folder of GPX, NMEA, KML, or Google Timelines."""
    clock_offset: tuple[str, ...] = ()
    """How far a camera's clock is ahead of UTC, by the camera's name in the results, where you know it: 'NIKON D80=+01:00:00'. Else
    it is found by what cameras and tracks saw at one time, and told."""

    def read(self, s3: S3Options) -> CompanyOptions:
        """Raises UsageError."""
        offsets = read_clock_offsets(self.clock_offset)
        tracks, notes = read_tracks(self.tracks, s3) if self.tracks else ([], [])
        for note in notes:
            log.warning("note: %s", note)
        if tracks:
            log.info("Tracks: %s, with %s points", f"{len(tracks):,}", f"{sum(map(len, tracks)):,}")
        return CompanyOptions(tuple(tracks), offsets)


@dataclass(frozen=True)
class ArchiveOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The photos: s3://bucket/prefix, folder, .tar, or .csv/.parquet with a column `uri`."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Run folder, s3:// or local. The same command goes on, and later takes up what is new."""
    method: Annotated[RecipeOptions, tyro.conf.OmitArgPrefixes, Group("method", METHOD)] = field(
        default_factory=RecipeOptions
    )
    relocate: Annotated[bool, Group("input")] = False
    """Locate photos that carry GPS too (instead of keeping their place), and report the accuracy on them."""
    context: Annotated[Context, Group("method")] = "auto"
    """auto: photos of a camera, and of those that were with it, locate each other once each has its own answer; off: they do not."""
    tracks: Annotated[TrackOptions, tyro.conf.OmitArgPrefixes, Group("method", COMPANY)] = field(
        default_factory=TrackOptions
    )
    dry_run: Annotated[bool, Group("options")] = False
    """Say how many photos there are, where they would go and what that would cost; only list them."""
    plan: Annotated[bool, Group("options")] = False
    """Locate 1,000 photos, say what all would take (--prices.*), and stop."""
    prices: Prices = field(default_factory=Prices)
    exports: Exports = field(default_factory=ExportOptions)
    listing: Listing = field(default_factory=ListingOptions)
    photos: Photos = field(default_factory=PhotoOptions)
    cluster: Cluster = field(default_factory=ClusterOptions)
    source_s3: SourceS3 = field(default_factory=SourceS3Options)
    s3: S3Options = field(default_factory=S3Options)

    @property
    def photos_s3(self) -> S3Options:
        return self.source_s3.over(self.s3)

    def check(self) -> Recipe:
        """How photos are located. Raises UsageError for what can be told without looking at any photo."""
        self.photos.check()
        self.listing.check()
        self.exports.check()
        self.prices.check()
        if self.plan and self.dry_run:
            raise UsageError("--plan: locates some photos first, which --dry-run does not; give one of them")
        if self.plan and (self.listing.limit or self.listing.sample):
            raise UsageError("--plan: is for all of SOURCE's photos; leave out --limit and --sample")
        if self.context == "off" and self.tracks != TrackOptions():
            raise UsageError("--context off: looks at no --tracks and no --clock-offset; leave them out")
        recipe = self.method.read(self.s3)
        recipe.check(self.s3)
        if self.plan and SELF in recipe.retrieval.index:
            raise UsageError(
                f"--plan: the index {SELF} is of all photos, which --plan does not look at; leave out one of them"
            )
        if self.relocate and SELF in recipe.retrieval.index:
            raise UsageError(f"--index {SELF}: photos that carry GPS would find themselves; leave out --relocate")
        return recipe

    def to_dict(self) -> dict:
        """For the run's record."""
        return asdict(self) | {"method": self.method.model_dump(exclude_none=True)}


@dataclass(frozen=True)
class IndexOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Geotagged photos: s3://bucket/prefix or a local folder (EXIF GPS), a .csv/.parquet file with columns uri, lat, lon
    [, city, region, country], or the word `gallery` for the encoder's own coordinates."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Index folder, s3:// or local. The same command on the same folder goes on after a crash."""
    encoder: str = "geoclip"
    """Image encoder: geoclip (CLIP ViT-L/14 and GeoCLIP's location space), lite (a weak one that runs on any CPU), or a
    folder from train_alignment.py."""
    model: str | None = None
    """Another image tower for the encoder: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    vectors: Literal["images", "multimodal"] = "images"
    """What references are found by, with a trained alignment: the photos' own vectors in all its spaces, or photo, words
    and coordinates, each in its own."""
    ann: Literal["ivfpq", "hnsw"] | None = None
    """Add an approximate index for searching on CPUs, and measure how much of exact search it finds of photos that are not
    in it. Its best rows are compared by their exact vectors."""
    picture_px: int = PICTURE_PX
    """Longest side of the photos' pictures that are kept for a ranker and the report (0: their own size, as published)."""
    listing: Listing = field(default_factory=ListingOptions)
    photos: Photos = field(default_factory=PhotoOptions)
    cluster: Cluster = field(default_factory=ClusterOptions)
    source_s3: SourceS3 = field(default_factory=SourceS3Options)
    s3: S3Options = field(default_factory=S3Options)

    @property
    def photos_s3(self) -> S3Options:
        return self.source_s3.over(self.s3)


@dataclass(frozen=True)
class CalibrationOptions:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of geotag_archive.py, with photos of known place among those it located: its own geotagged ones
    (run with --relocate), or those of TRUTH."""
    truth: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH")] = None
    """.csv or .parquet with the places of the run's photos (default: the run's own true_lat and true_lon)."""
    output: str | None = None
    """Where to write calibration.json, a folder (default: RUN)."""
    coverage: float = 0.9
    """Probability with which a photo's radius is to hold its true place."""
    columns: Columns = field(default_factory=Columns)
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class EvaluationOptions:
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[PREDICTIONS …] TRUTH OUTPUT")]
    """Predictions (none are needed with --images), the truth, and the folder for the results. Predictions and truth are .csv or .parquet
    files, or run folders of geotag_archive.py; NAME=FILE names a run in the tables. A run folder as the truth means its
    photos that carried GPS. I.npy of G3 and GeoRanker is understood with --database."""
    dataset: str | None = None
    """The benchmark that the truth is, to print published figures beside ours: im2gps, im2gps3k, yfcc4k, yfcc26k, gws15k,
    osv5m (default: by the truth's file name)."""
    database: str | None = None
    """Table of coordinates that .npy predictions are row numbers of."""
    hide: Annotated[float | None, Group(NEIGHBOURS)] = None
    """Instead of PREDICTIONS and TRUTH give one TABLE (as locate_together.py's), or a RUN: so large a share of its known places is
    hidden, and what the photos say alone is compared with what they say together."""
    hide_by: Annotated[HideBy, Group(NEIGHBOURS)] = "photo"
    """What is hidden as a whole: single photos, whose neighbours give them away, or bursts, days, trips, or albums."""
    repeats: Annotated[int, Group(NEIGHBOURS)] = 5
    """Draws of what is hidden."""
    locate: Annotated[LocateOptions, tyro.conf.OmitArgPrefixes, Group(LOCATED_HERE, LOCATE)] = field(
        default_factory=LocateOptions
    )
    protocol: Annotated[Protocol, tyro.conf.OmitArgPrefixes, Group("options", ("distance", "sphere_km", "rule"))] = (
        field(default_factory=Protocol)
    )
    predictions: Columns = field(default_factory=Columns)
    truth: Columns = field(default_factory=Columns)
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class TogetherOptions:
    table: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """.csv or .parquet of any system: uri; album or camera; taken_at or sequence; lat, lon (the system's estimate) or candidates
    (lists of lat, lon and score, in CSV as JSON), empty where it has none; known_lat, known_lon, empty where unknown."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder for together.parquet, s3:// or local."""
    tracks: Annotated[TrackOptions, tyro.conf.OmitArgPrefixes, Group("options", COMPANY)] = field(
        default_factory=TrackOptions
    )
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class LightOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Index of photos from build_index.py, s3:// or local. Each is asked about as if it, its twins, and the photographer's other
    photos were in no index; who took a photo is told by its metadata, or by the column `author` of the table it was built from."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the light ranker, s3:// or local, which other jobs take as --light-ranker; with tables and a report of how it does on
    photographers that it has not seen."""
    index: tuple[str, ...] = ()
    """Indexes to search, in this order, as the archive is to be; `gallery` for the encoder's own (default: SOURCE)."""
    photos: int = 5_000
    """To ask about, drawn from the index."""
    places: int = 20
    """Of a photo's pool, at most: --candidates of the jobs that use it."""
    depth: int = 500
    """Neighbours in each index that places and their evidence are made of."""
    steps: int = 1_500
    """Of AdamW, over 256 photos each."""
    ablations: bool = False
    """Fit it again without regions, without support by neighbours, without similarities, and without each index, for the tables."""
    seed: int = 0
    """Of what is drawn, and of the first weights."""
    s3: S3Options = field(default_factory=S3Options)

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("photos", "places", "depth", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}: must be at least 1")
        if self.places > self.depth:
            raise UsageError(f"--places {self.places}: must not be above --depth {self.depth}")
        if self.depth > MAX_CANDIDATES:
            raise UsageError(f"--depth {self.depth}: must not be above {MAX_CANDIDATES}")


@dataclass(frozen=True)
class GateOptions:
    light: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LIGHT_RUN")]
    """Run folder of geotag_archive.py without the heavy ranker, with photos of known place among those it located (--relocate)."""
    heavy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="HEAVY_RUN")]
    """The same photos by the same recipe with the ranker, all of them ranked."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder for gate.json, which geotag_archive.py takes as --heavy-gate."""
    truth: str | None = None
    """.csv or .parquet with the photos' places, and authors (default: LIGHT_RUN's own true_lat and true_lon)."""
    seed: int = 0
    """Of the half that is fitted on."""
    columns: Columns = field(default_factory=Columns)
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class GeoRankingJobOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Photos of known place: s3://bucket/prefix or a local folder (EXIF GPS), or a .csv/.parquet file with columns uri, lat,
    lon. With --images, a table in the layout of GeoRanker's GeoRanking.parquet."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the training set, s3:// or local. The same command goes on where it was."""
    recipe: str = "geoclip"
    """How places are retrieved: a recipe's name, .yaml file, run.json or package.module:function, as geotag_archive.py's; its
    scorers and confidence play no part. It needs an index of photos (--index), or a published table its --images."""
    retrieval: Annotated[
        RetrievalOverrides, tyro.conf.OmitArgPrefixes, Group("options", ("index", "encoder", "model"))
    ] = field(default_factory=RetrievalOverrides)
    images: str | None = None
    """Folder of the images that a published table names; what it retrieved is taken over, and nothing is searched."""
    rows: Annotated[GeoRankingOptions, tyro.conf.OmitArgPrefixes, Group("options", GEORANKING)] = field(
        default_factory=GeoRankingOptions
    )
    listing: Listing = field(default_factory=ListingOptions)
    photos: Photos = field(default_factory=PhotoOptions)
    cluster: Cluster = field(default_factory=ClusterOptions)
    s3: S3Options = field(default_factory=S3Options)

    def check(self) -> None:
        self.photos.check()
        self.listing.check()
        self.rows.check()
        if self.images is None:
            self.read_recipe()
        elif self.retrieval.index:
            raise UsageError(
                "--index: a published table with its --images is taken over as it is; leave one of them out"
            )

    def read_recipe(self) -> Recipe:
        """Raises UsageError."""
        recipe = self.retrieval.change(read_recipe(self.recipe, self.s3))
        if len(recipe.retrieval.index) != 1:
            raise UsageError("--index: name the index to retrieve from, or, for a published table, its --images")
        retrieval = dataclasses.replace(recipe.retrieval, candidates=self.rows.references)
        return dataclasses.replace(recipe, retrieval=retrieval)


@dataclass(frozen=True)
class PublicationOptions:
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of geotag_archive.py, s3:// or local."""
    exports: Exports = field(default_factory=ExportOptions)
    take_back: tuple[str, ...] = ()
    """Only delete the sidecars of ours, as they were written, below these folders: RUN/xmp, or wherever they were copied."""
    s3: S3Options = field(default_factory=S3Options)
