"""The models on a data set with known truth: every configuration's answers for every photo, in one pass on Ray."""

import dataclasses
import functools
import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.encoders.presets import preset
from geoloc.errors import UsageError
from geoloc.estimate.options import ComparisonOptions, Configuration
from geoloc.evaluation.matching import match
from geoloc.evaluation.positions import Positions
from geoloc.photos.sources import Source
from geoloc.pipeline.cluster import connect, make_plan
from geoloc.pipeline.indexes import check_encoder, find_index
from geoloc.pipeline.lock import held
from geoloc.pipeline.models import build_comparison, probe_encoder
from geoloc.pipeline.options import LocateOptions
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.ranking.choosers import choosers_for
from geoloc.results.parts import Parts
from geoloc.schema import COMPARED
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

PHOTOS = "photos.parquet"


def compare(options: LocateOptions, truth: Positions, folder: Folder) -> dict[str, Positions]:
    """Locate the photos of the truth; each configuration's answers by its name. ``folder`` is where to go on from.

    Raises UsageError where something is to be put right, among it photos that are not there.
    """
    with held(folder):
        return _compare(options, truth, Run(folder, "answers", COMPARED))


def _compare(options: LocateOptions, truth: Positions, run: Run) -> dict[str, Positions]:
    models = preset(options.preset, options.model, run.folder.s3)
    index, info = find_index(options.index, models, max(options.candidates), run.folder)
    configurations = tuple(
        Configuration(chooser, count, parts)
        for chooser in options.choosers or choosers_for(models)
        for parts in options.vector_parts(models)
        for count in options.candidates
    )
    connect()
    plan = make_plan(options.cluster)
    encoder = probe_encoder(models)
    check_encoder(index, info, models, encoder.fingerprint)
    run.settle(
        {
            "images": Folder(options.images).uri,
            "encoder": encoder.fingerprint,
            "index": info.fingerprint,
            "configurations": [configuration.name for configuration in configurations],
            "density_sigma_km": options.density_sigma_km,
            "ten_crop": options.ten_crop,
            "exact_decode": options.photos.exact_decode,
        }
    )
    run.take_up(_photos_of(truth, options.images, run), options.photos.retry_kinds())
    view = dataclasses.replace(encoder.view, ten_crop=options.ten_crop)
    comparison = ComparisonOptions(models, index, configurations, options.density_sigma_km, options.ten_crop)
    stream = Stream(
        run,
        load=options.photos.load_options(view, run.folder.s3),
        build_model=functools.partial(build_comparison, comparison),
        plan=plan,
        max_failing_share=options.photos.max_failing_share,
    )
    for line in stream.work().lines():
        log.info("%s", line)
    if missing := run.reconcile():
        raise UsageError(f"OUTPUT {run.folder.uri}: {missing:,} photos have no answer yet; run the same command again")
    run.succeed({"compared": run.manifest.rows})
    return {name.name: _positions(run.parts, name, number) for number, name in enumerate(configurations)}


def _photos_of(truth: Positions, images: str, run: Run) -> Source:
    """A table of the photos that the truth is about, with it; made once."""
    s3 = run.folder.s3
    if not run.folder.exists(PHOTOS):
        batches = list(Source(images, s3).list())
        if not batches:
            raise UsageError(f"--images {images}: no photos there")
        listing = pa.Table.from_batches(batches)
        nowhere = np.full(listing.num_rows, np.nan)
        row = match(Positions(images, {"uri": listing["uri"].combine_chunks()}, nowhere, nowhere), truth).row
        table = listing.take(pa.array(row[row >= 0]))
        for name, values in (("lat", truth.lat), ("lon", truth.lon)):
            column = pa.array(values[row >= 0], from_pandas=True)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        run.folder.write(PHOTOS, sink.getvalue().to_pybytes())
    return Source(f"{run.folder.uri}/{PHOTOS}", s3)


def _positions(parts: Parts, configuration: Configuration, number: int) -> Positions:
    """What the ``number``-th configuration answered."""
    table = pa.concat_tables(parts.tables(["uri", "status", "answers"]))
    answered = pc.equal(table["status"], "compared").to_numpy()
    answers = table["answers"].combine_chunks().filter(pa.array(answered))
    of_each = len(answers.flatten()) // max(1, len(answers))
    mine = answers.flatten().take(pa.array(np.arange(number, len(answers) * of_each, of_each)))
    columns = {}
    for name in ("lat", "lon", "confidence", "radius_km"):
        columns[name] = np.full(table.num_rows, np.nan)
        columns[name][answered] = mine.field(name).to_numpy(zero_copy_only=False)
    at = np.full(table.num_rows, -1)
    at[answered] = np.arange(int(answered.sum()))
    lists = mine.field("candidates").take(pa.array(at, mask=at < 0))
    uris = table["uri"].combine_chunks()
    lat, lon = columns.pop("lat"), columns.pop("lon")
    return Positions(configuration.name, {"uri": uris}, lat, lon, extra=columns, lists=lists)
