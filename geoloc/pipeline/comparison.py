"""Recipes on a data set with known truth: the answers of each for every photo, in one pass on Ray for each encoder."""

import dataclasses
import functools
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.estimate.options import ComparisonOptions
from geoloc.evaluation.matching import match
from geoloc.evaluation.positions import Positions
from geoloc.photos.sources import Source
from geoloc.photos.views import AreaView
from geoloc.pipeline.cluster import check_seen, connect
from geoloc.pipeline.lease import leased
from geoloc.pipeline.models import probe
from geoloc.pipeline.options import LocateOptions
from geoloc.pipeline.placement import Placement
from geoloc.pipeline.run import Run
from geoloc.pipeline.stages import Stream
from geoloc.recipes.method import Facts, Method
from geoloc.recipes.recipe import Recipe
from geoloc.recipes.stage import Answer, Stage
from geoloc.results.parts import Parts
from geoloc.schema import compared
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

PHOTOS = "photos.parquet"


def compare(options: LocateOptions, recipes: list[Recipe], truth: Positions, folder: Folder) -> dict[str, Positions]:
    """Locate the photos of the truth; each recipe's answers by its name. ``folder`` is where to go on from.

    Recipes of one encoder share their photos' vectors; those of another read the photos anew.

    Raises UsageError where something is to be put right, among it photos that are not there.
    """
    groups: dict[EncoderConfig, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(recipe.encoder_config(folder.s3), []).append(recipe)
    found: dict[str, Positions] = {}
    with leased(folder, options.cluster.wait_minutes) as folder:
        for number, group in enumerate(groups.values()):
            run = Run(folder / f"encoder-{number}", "answers", compared(len(group)))
            found |= _compare(options, group, truth, run)
    return {recipe.name: found[recipe.name] for recipe in recipes}


def _compare(options: LocateOptions, recipes: list[Recipe], truth: Positions, run: Run) -> dict[str, Positions]:
    """By recipes of one encoder."""
    methods = [Method.find(recipe, run.folder) for recipe in recipes]
    connect()
    placement = Placement(options.cluster, _stages(methods, options.ten_crop))
    images = Source(options.images, run.folder.s3)
    check_seen(
        run.folder.parent()[0],
        {"--images": images.place, "--index": sorted({index.uri for method in methods for index in method.indexes})},
    )
    facts = [probe(methods[0])]
    facts += [method.facts(facts[0].view, facts[0].dimension, facts[0].weights["encoder"]) for method in methods[1:]]
    for method, known in zip(methods, facts, strict=True):
        method.check_calibration(known.weights)
    run.settle(
        {
            "images": Folder(options.images).uri,
            "ten_crop": options.ten_crop,
            "exact_decode": options.photos.exact_decode,
            "recipes": [recipe.name for recipe in recipes],  # in this order: an answer's column has its recipe's number
            "methods": {m.recipe.name: m.settings(known.weights) for m, known in zip(methods, facts, strict=True)},
        }
    )
    run.take_up(_photos_of(truth, options.images, run), options.photos.retry_kinds())
    view = dataclasses.replace(facts[0].view, ten_crop=options.ten_crop)
    stream = Stream(
        run,
        load=options.photos.load_options(view, run.folder.s3, picture_view=_picture_view(facts)),
        placement=placement,
        max_failing_share=options.photos.max_failing_share,
    )
    for line in stream.work().lines():
        log.info("%s", line)
    if missing := run.reconcile():
        raise UsageError(f"OUTPUT {run.folder.uri}: {missing:,} photos have no answer yet; run the same command again")
    run.succeed({"compared": run.manifest.rows})
    return {recipe.name: _positions(run.parts, recipe.name, number) for number, recipe in enumerate(recipes)}


def _picture_view(facts: list[Facts]) -> AreaView | None:
    """Of all rankers. Raises UsageError where they look at different pictures."""
    views = list(dict.fromkeys(known.picture_view for known in facts if known.picture_view))
    if len(views) > 1:
        raise UsageError(f"--recipes: their rankers do not look at the same picture ({views}); compare them one by one")
    return views[0] if views else None


def _stages(methods: list[Method], ten_crop: bool) -> list[Stage]:
    """One that encodes, searches and chooses for all recipes, then one for each ranker of each recipe."""
    options = ComparisonOptions(tuple(method.locator_options() for method in methods), ten_crop)
    rankers = [
        (recipe, number) for recipe, method in enumerate(methods) for number in range(len(method.recipe.rankers))
    ]
    retriever = methods[0].stages()[0] if not rankers else methods[rankers[0][0]].stages()[0]
    stages = [dataclasses.replace(retriever, build=functools.partial(_build_comparison, options))]
    for recipe, number in rankers:
        build = functools.partial(_build_reranker, methods[recipe], recipe, number, (recipe, number) == rankers[-1])
        stages.append(dataclasses.replace(methods[recipe].stages()[1 + number], build=build))
    return stages


def _build_comparison(options: ComparisonOptions, device: str, threads: int) -> Answer:
    from geoloc.estimate.comparison import Comparison

    return Comparison(options, device, threads).compare


def _build_reranker(method: Method, column: int, number: int, last: bool, device: str, threads: int) -> Answer:
    from geoloc.estimate.comparison import ComparedReranker

    return ComparedReranker(column, method.load_reranker(number, device, threads), last).rerank


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


def _positions(parts: Parts, name: str, number: int) -> Positions:
    """What the ``number``-th recipe answered."""
    table = pa.concat_tables(parts.tables(["uri", f"answer_{number}"]))
    answers = table[f"answer_{number}"].combine_chunks()
    names = [field.name for field in answers.type]
    columns = dict(zip(names, answers.flatten(), strict=True))
    extra = {n: columns[n].to_numpy(zero_copy_only=False).astype(np.float64) for n in ("confidence", "radius_km")}
    lat, lon = (columns[axis].to_numpy(zero_copy_only=False) for axis in ("lat", "lon"))
    return Positions(name, {"uri": table["uri"].combine_chunks()}, lat, lon, extra=extra, lists=columns["candidates"])
