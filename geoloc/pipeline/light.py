"""Training a light ranker, as its user starts it: from indexes, on this machine, without Ray and without a photo being read."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

from geoloc.candidates.pool import Hits, Pooling
from geoloc.encoders.config import encoder_config
from geoloc.errors import UsageError
from geoloc.estimate.finder import Finder
from geoloc.estimate.pooler import Pooler
from geoloc.estimate.questioner import Questioner
from geoloc.evaluation.evaluation import Evaluation, RunResult, evaluate
from geoloc.evaluation.metrics import ACCURACIES
from geoloc.evaluation.positions import Positions
from geoloc.evaluation.table_file import CANDIDATE_PARTS
from geoloc.geo.distance import haversine_km
from geoloc.index.store import IndexInfo, open_index, read_info
from geoloc.pipeline.evaluation import write_evaluation
from geoloc.pipeline.job_options import LightOptions
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.evidence import REGION, feature_names
from geoloc.ranking.light import checksum, fixed_rule
from geoloc.ranking.light_fitting import Questions, cross_fitted, fit
from geoloc.ranking.light_folder import INFO, NETWORK, RULE, WEIGHTS, LightInfo
from geoloc.recipes.indexes import find_indexes
from geoloc.storage import Folder

log = logging.getLogger("geoloc")

FEWEST_PHOTOS, FEWEST_AUTHORS = 1_000, 200
"""That a network is learned from; with fewer, the fixed rule is as good (pinpoint-rl)."""
KNOWN_SHARE = 0.9
"""Of the index's photos, whose photographer has to be known: of others nobody can leave out those by the same."""
PRIOR_WEIGHTS = (0.0, 0.001, 0.003, 0.01, 0.03)
AT_ONCE, FIRST = 256, 10
FIXED, HELD_OUT, ORACLE = "fixed rule", "light ranker", "nearest place"
"""Runs in the tables."""


def train_light(options: LightOptions) -> int:
    """Ask, fit, judge, write; returns the process's exit status. Raises UsageError where something is to be put right."""
    options.check()
    folder = Folder(options.output, options.s3)
    folder.check_writable("OUTPUT")
    asked = _asked(options, folder)
    light = LightInfo(
        RULE,
        tuple(asked.pooler.kinds),
        tuple(index.info.weights for index in asked.pooler.index.indexes),
        options.places,
        asked.pooler.pooling,
        asked.scale,
        tuple(index.info.fingerprint for index in asked.pooler.index.indexes),
        len(asked.questioner),
        asked.questioner.authors,
    )
    questions = asked.questions()
    names = feature_names(light.kinds)
    rule = fixed_rule(light.kinds, light.scale, light.pooling.prior_weight)(questions.evidence)
    scores = {
        FIXED: np.where(questions.there, rule, -np.inf),
        HELD_OUT: cross_fitted(questions, options.seed, options.steps),
    }
    if options.ablations:
        for left_out, columns in _ablations(names).items():
            log.info("Fitting %s", left_out)
            few = replace(questions, evidence=np.where(columns, questions.evidence, 0))
            scores[left_out] = cross_fitted(few, options.seed, options.steps)
    scores[ORACLE] = np.where(questions.there, -questions.km, -np.inf)
    judged = asked.judged(scores)
    by_name = {run.name: run for run in judged.runs}
    figures = by_name[HELD_OUT].measured.figures
    light = replace(light, learned_without={name: round(figures[name].value, 2) for name in ACCURACIES})
    reason = _why_not(light, asked.known_share, by_name[HELD_OUT])
    if reason is None:
        content = fit(questions, options.seed, options.steps).to_bytes()
        folder.write(WEIGHTS, content)
        light = replace(light, model=NETWORK, weights=checksum(content))
    write_evaluation(folder, judged)
    folder.write(INFO, light.to_json())
    if reason is None:
        log.info("Light ranker: a network of %s features, in %s", len(names), folder.uri)
    else:
        log.warning("note: the folder holds the fixed rule, no network: %s", reason)
    log.info("Use it: --light-ranker %s --index %s", folder.uri, " ".join(options.index or (options.source,)))
    return 0


@dataclass(frozen=True)
class _Asked:
    pooler: Pooler
    questioner: Questioner
    found: list[list[Hits]]
    """By AT_ONCE photos: a list of each index."""
    pools: list[Candidates]
    uri: pa.Array
    author: pa.Array
    known_share: float
    """Of the index's photos, those whose photographer is known."""
    scale: float

    def questions(self) -> Questions:
        pools = self.pools
        joined = {name: np.concatenate([getattr(pool, name) for pool in pools]) for name in ("row", "lat", "lon")}
        km = haversine_km(self.questioner.lat[:, None], self.questioner.lon[:, None], joined["lat"], joined["lon"])
        there = joined["row"] >= 0
        evidence = np.concatenate([pool.evidence for pool in pools])
        return Questions(evidence, there, np.where(there, km, np.inf), self.questioner.group)

    def judged(self, scores: dict[str, np.ndarray]) -> Evaluation:
        """Answers by scores (n, p), and by each list's first hit, against where the photos were taken."""
        lat, lon = (np.concatenate([getattr(pool, axis) for pool in self.pools]) for axis in ("lat", "lon"))
        similarity = np.concatenate([pool.similarity for pool in self.pools])
        ids = {"uri": self.uri}
        runs = {name: _answers(name, ids, found, lat, lon, similarity) for name, found in scores.items()}
        for number, name in enumerate(_list_names(self.pooler.kinds)):
            first = [lists[number] for lists in self.found]
            there = np.concatenate([hits.there[:, 0] for hits in first])
            at = (np.concatenate([getattr(hits, axis)[:, 0] for hits in first]) for axis in ("lat", "lon"))
            runs[name] = Positions(name, ids, *(np.where(there, values, np.nan) for values in at))
        truth = Positions("photos of the index", ids, self.questioner.lat, self.questioner.lon, author=self.author)
        return evaluate(runs, truth)


def _asked(options: LightOptions, folder: Folder) -> _Asked:
    source = Folder(options.source, options.s3)
    info = _askable_info(source, options)
    config = encoder_config(info.encoder, s3=options.s3)
    found = find_indexes(options.index or (options.source,), config, 1, folder)
    for index, other in found:
        if other.kind == "cells" or (other.kind == "photos" and other.weights != info.weights):
            what = "holds cells" if other.kind == "cells" else f"was made with another encoder than {options.source}"
            raise UsageError(f"--index {index.uri}: {what}")
    photos = open_index(source)
    finders = [Finder(open_index(index), config, torch.device("cpu")) for index, _ in found]
    pooler = Pooler(finders, Pooling(depth=options.depth))
    known = photos.author.is_valid().to_numpy(zero_copy_only=False)
    askable = np.flatnonzero(known) if known.sum() >= FEWEST_PHOTOS else np.arange(info.rows)
    rows = np.sort(np.random.default_rng(options.seed).permutation(askable)[: options.photos])
    number = next((n for n, (index, _) in enumerate(found) if index.uri == source.uri), None)
    questioner = Questioner(pooler, photos, rows, None if number is None else int(pooler.index.starts[number]))
    lists = _found(questioner)
    pooler.pooling, pools = _best_prior(pooler, questioner, lists, options.places)
    taken = pa.array(rows)
    uris, author = (column.take(taken).fill_null("") for column in (photos.uri, photos.author))
    # uris may be none, or repeat: rows are what tells photos apart
    ids = pa.array([f"{row}:{uri}" for row, uri in zip(rows.tolist(), uris.to_pylist(), strict=True)])
    return _Asked(pooler, questioner, lists, pools, ids, author, float(known.mean()), config.similarity_scale)


def _askable_info(source: Folder, options: LightOptions) -> IndexInfo:
    """Raises UsageError where the index's photos cannot be asked about by their vectors."""
    info = read_info(source)
    if info.kind != "photos":
        raise UsageError(f"SOURCE {options.source}: is an index of {info.kind}; make one of photos with build_index.py")
    if info.vectors != "images":
        raise UsageError(
            f"SOURCE {options.source}: its vectors hold photos' coordinates (--vectors {info.vectors}), so that they would be asked "
            "about with the answer; build SOURCE with --vectors images, and name this one with --index"
        )
    return info


def _found(questioner: Questioner) -> list[list[Hits]]:
    start, lists = time.perf_counter(), []
    for first in range(0, len(questioner), AT_ONCE):
        lists.append(questioner.hits(slice(first, first + AT_ONCE)))
        done = min(first + AT_ONCE, len(questioner))
        if len(lists) % 10 == 0 or done == len(questioner):
            rate = done / (time.perf_counter() - start)
            log.info("Asked about %s of %s photos, %.0f/s", f"{done:,}", f"{len(questioner):,}", rate)
    return lists


def _best_prior(
    pooler: Pooler, questioner: Questioner, lists: Sequence[list[Hits]], places: int
) -> tuple[Pooling, list[Candidates]]:
    """The weight of the regions that brings the right city among the first places most often."""
    best: tuple[float, Pooling, list[Candidates]] | None = None
    for weight in PRIOR_WEIGHTS:
        pooler.pooling = replace(pooler.pooling, prior_weight=weight)
        pools, right = [], 0
        for number, found in enumerate(lists):
            pools.append(pooler.places(found, places))
            photos = slice(number * AT_ONCE, (number + 1) * AT_ONCE)
            first = pools[-1].first(FIRST)
            lat, lon = questioner.lat[photos, None], questioner.lon[photos, None]
            right += int(((haversine_km(lat, lon, first.lat, first.lon) < 25) & first.known).any(axis=1).sum())
        if best is None or right > best[0]:
            best = right, pooler.pooling, pools
    right, pooling, pools = best
    log.info(
        "Regions weigh %g: the right city is among the first %s places of %.1f %%",
        pooling.prior_weight,
        FIRST,
        100 * right / len(questioner),
    )
    return pooling, pools


def _ablations(names: Sequence[str]) -> dict[str, np.ndarray]:
    """(f,) bool, what of the evidence is left."""
    kinds = sorted({name.rpartition(" ")[0] for name in names if name != REGION})
    without: dict[str, Callable[[str], bool]] = {
        "without regions": lambda name: name == REGION,
        "without support": lambda name: name.endswith((" near", " around")),
        "without similarity": lambda name: name.endswith((" best", " rank", " from_top")),
    }
    if len(kinds) > 1:
        without |= {f"without {kind}": lambda name, kind=kind: name.rpartition(" ")[0] == kind for kind in kinds}
    return {f"light, {what}": np.array([not left_out(name) for name in names]) for what, left_out in without.items()}


def _list_names(kinds: Sequence[str]) -> list[str]:
    return [f"index {number + 1} ({kind}): most similar" for number, kind in enumerate(kinds)]


def _answers(
    name: str, ids: dict, scores: np.ndarray, lat: np.ndarray, lon: np.ndarray, similarity: np.ndarray
) -> Positions:
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, lat, lon, similarity = (
        np.take_along_axis(values, order, axis=1) for values in (scores, lat, lon, similarity)
    )
    there = np.isfinite(scores)
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))]).astype(np.int32)
    parts = [pa.array(values[there].astype(np.float64)) for values in (lat, lon, scores, similarity)]
    lists = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, CANDIDATE_PARTS))
    first = (np.where(there[:, 0], axis[:, 0], np.nan) for axis in (lat, lon))
    return Positions(name, ids, *first, lists=lists)


def _why_not(light: LightInfo, known_share: float, held_out: RunResult) -> str | None:
    """A network is not to be had, or not worth it."""
    if light.photos < FEWEST_PHOTOS:
        return f"{light.photos:,} photos are too few to learn from ({FEWEST_PHOTOS:,})"
    if light.authors < FEWEST_AUTHORS:
        return f"{light.authors:,} known photographers are too few to learn from ({FEWEST_AUTHORS:,}); tables tell them as `author`"
    if known_share < KNOWN_SHARE:
        return (
            f"of {1 - known_share:.0%} of the index's photos nobody knows who took them, and they may be by the same photographer as "
            "those asked about; tables tell them as `author`"
        )
    gain = held_out.measured.against["geoguessr"]
    if gain.low <= 0:
        return (
            f"on photographers that it had not seen, the network's mean score is {gain.value:+.0f} "
            f"[{gain.low:+.0f}, {gain.high:+.0f}] beside the rule's"
        )
    return None
