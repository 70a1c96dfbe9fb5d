"""Retrieved answers put right by a ranker: the same rows in and out, with its scores and what follows from them."""

import time

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.estimate.gate import Worth
from geoloc.geo.distance import haversine_km
from geoloc.geo.places import places
from geoloc.index.store import Index
from geoloc.ranking.prompt import PromptPlace, negatives_of, place_words
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorers import Rank, RankOptions
from geoloc.schema import LOCATED, unpacked

AGREEING = 5
"""So many of the most similar candidates have to lie close together for ranking to be skipped (GeoRanker, App. I: top-k)."""
SAME_PLACE_KM = 1.0
"""A reference this near to a generated candidate shows what it is like there (enrich_generated)."""
AGREED, FAILED, NOT_WORTH = "candidates agree", "ranking failed", "not worth ranking"
NO_PICTURE = PhotoError("no_picture", "the ranker cannot look at a picture of this shape")


class Reranker:
    def __init__(
        self,
        name: str,
        ranker: Rank,
        index: Index,
        options: RankOptions,
        confidence: Confidence,
        scale_before: float = 1.0,
        by: str = "similarity",
        keep_picture: bool = False,
        worth: Worth | None = None,
    ) -> None:
        """``scale_before``: what makes the scores that there are comparable with the ranker's, whose name is ``name``. ``by``:
        which field of candidates says which of them are ranked. ``keep_picture``: for another ranker. ``worth``: which photos are worth ranking; None for all."""
        self._name, self._ranker, self._index, self._options = name, ranker, index, options
        self._confidence, self._scale_before, self._by, self._keep_picture = confidence, scale_before, by, keep_picture
        self._worth = worth

    def rerank(self, batch: pa.Table) -> pa.Table:
        """LOCATED with ``picture`` (Locator) to LOCATED, row for row.

        A photo's candidates are those that were ranked, best first. A photo that was not keeps the answer it had;
        ``method`` says why, and ``error_kind`` and ``error`` what was wrong with it.
        """
        start = time.perf_counter()
        rows = batch.select(["status", "method", "candidates", "error_kind", "error"]).to_pylist()
        answered = [n for n, row in enumerate(rows) if row["status"] in ANSWERED]
        pictures = batch["picture"].take(pa.array(answered, pa.int64())).to_pylist()
        lists = batch["candidates"].combine_chunks().take(pa.array(answered, pa.int64()))
        worth = self._worth(lists) if self._worth and answered else np.ones(len(answered), bool)
        ranked = self._rerank([rows[n] for n in answered], [unpacked(picture) for picture in pictures], worth.tolist())
        seconds = np.zeros(len(rows), np.float32)
        seconds[[n for n, asked in zip(answered, ranked, strict=True) if asked]] = time.perf_counter() - start
        seconds /= max(1, sum(ranked))
        seconds += batch["rank_s"].fill_null(0).to_numpy()  # of rankers before this one
        done = self._confidence.renew(_with(batch, rows, seconds))
        return done if self._keep_picture else done.drop_columns(["picture"])

    def _rerank(self, rows: list[dict], pictures: list[np.ndarray | None], worth: list[bool]) -> list[bool]:
        """Puts photos' answers right, in place. Returns which of them the ranker was to look at."""
        lists = [self._ordered(row["candidates"]) for row in rows]
        why_not = [
            AGREED if self._agree(candidates) else None if promising else NOT_WORTH
            for candidates, promising in zip(lists, worth, strict=True)
        ]
        shown = [n for n, picture in enumerate(pictures) if picture is not None and not why_not[n]]
        ranked = [self._to_be_ranked(candidates) for candidates in lists]
        queries = [self._query(pictures[n], ranked[n], lists[n]) for n in shown]
        scores = dict(zip(shown, self._ranker.rank(queries), strict=True))
        for n, row in enumerate(rows):
            found = scores.get(n, NO_PICTURE)
            if isinstance(found, np.ndarray):
                row |= {"method": self._name, "candidates": _ranked(ranked[n], found)}
                continue
            row["candidates"] = [_scaled(c, self._scale_before) for c in row["candidates"]]
            row["method"] += f" ({why_not[n] or FAILED})"
            if not why_not[n]:
                row |= {"error_kind": found.kind, "error": found.message}
        return [reason is None for reason in why_not]

    def _ordered(self, candidates: list[dict]) -> list[dict]:
        """Best first by what was there before this ranker; after those the generated ones that nothing is known of."""
        known = [c for c in candidates if c[self._by] is not None]
        others = [c for c in candidates if c[self._by] is None]
        return sorted(known, key=lambda c: -c[self._by]) + sorted(others, key=lambda c: c["rank"])

    def _to_be_ranked(self, ordered: list[dict]) -> list[dict]:
        """So many of the best, and all that are generated, which nothing has put in order."""
        known = [c for c in ordered if c[self._by] is not None]
        return known[: self._options.ranked] + ordered[len(known) :]

    def _agree(self, candidates: list[dict]) -> bool:
        if self._options.skip_within_km is None:
            return False
        lat, lon = (np.array([c[name] for c in candidates[:AGREEING]]) for name in ("lat", "lon"))
        return haversine_km(lat[:, None], lon[:, None], lat, lon).max() <= self._options.skip_within_km

    def _query(self, picture: np.ndarray, ranked: list[dict], candidates: list[dict]) -> RankQuery:
        """About those that are ``ranked`` of a photo's candidates."""
        options = self._options
        rows = [c["reference_id"] for c in candidates if c["reference_id"] is not None]
        negatives = negatives_of(options.template, rows, options.ranked, options.negatives)
        shown = [c["reference_id"] for c in ranked if c["reference_id"] is not None]
        known = list({*shown, *negatives})
        words = dict(zip(known, self._index.place.take(pa.array(known, pa.int64())).to_pylist(), strict=True))
        told = {row: self._place(row, words[row]) for row in known}
        return RankQuery(picture, [self._candidate(one, told) for one in ranked], [told[row] for row in negatives])

    def _candidate(self, candidate: dict, told: dict[int, PromptPlace]) -> RankCandidate:
        row = candidate["reference_id"]
        if row is not None:
            return RankCandidate(told[row], self._index.thumbnail(row), row)
        if not self._options.enrich_generated:
            return RankCandidate(PromptPlace(candidate["lat"], candidate["lon"]))
        lat, lon = candidate["lat"], candidate["lon"]
        (names,) = places().lookup([lat], [lon]).to_pylist()
        near = self._index.nearest(lat, lon, SAME_PLACE_KM)
        return RankCandidate(
            PromptPlace(lat, lon, _words(names)), None if near is None else self._index.thumbnail(near), near
        )

    def _place(self, row: int, names: dict | None) -> PromptPlace:
        return PromptPlace(float(self._index.lat[row]), float(self._index.lon[row]), _words(names))


def _words(names: dict | None) -> str:
    return place_words(*((names or {}).get(name) for name in ("city", "region", "country")))


def _scaled(candidate: dict, scale: float) -> dict:
    score = candidate["score"]
    return candidate | {"score": None if score is None else score * scale}


def _ranked(candidates: list[dict], scores: np.ndarray) -> list[dict]:
    """Best first; of equals the more similar."""
    order = np.argsort(-scores, kind="stable")
    return [candidates[n] | {"score": float(scores[n])} for n in order]


def _with(table: pa.Table, rows: list[dict], seconds: np.ndarray) -> pa.Table:
    columns = {name: [row[name] for row in rows] for name in ("method", "candidates", "error_kind", "error")}
    columns["rank_s"] = seconds
    for name, values in columns.items():
        at, field = table.schema.get_field_index(name), LOCATED.field(name)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
