"""Retrieved answers put right by a ranker: the same rows in and out, with its scores and what follows from them."""

import time

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.geo.distance import haversine_km
from geoloc.index.store import Index
from geoloc.ranking.prompt import PromptPlace, negatives_of, place_words
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorers import Rank, RankOptions
from geoloc.schema import LOCATED, unpacked

AGREEING = 5
"""So many of the most similar candidates have to lie close together for ranking to be skipped (GeoRanker, App. I: top-k)."""
AGREED, FAILED = "candidates agree", "ranking failed"
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
    ) -> None:
        """``scale_before``: what makes the scores that there are comparable with the ranker's, whose name is ``name``. ``by``:
        which field of candidates says which of them are ranked. ``keep_picture``: for another ranker."""
        self._name, self._ranker, self._index, self._options = name, ranker, index, options
        self._confidence, self._scale_before, self._by, self._keep_picture = confidence, scale_before, by, keep_picture

    def rerank(self, batch: pa.Table) -> pa.Table:
        """LOCATED with ``picture`` (Locator) to LOCATED, row for row.

        A photo's candidates are those that were ranked, best first. A photo that was not keeps the answer it had;
        ``method`` says why, and ``error_kind`` and ``error`` what was wrong with it.
        """
        start = time.perf_counter()
        rows = batch.select(["status", "method", "candidates", "error_kind", "error"]).to_pylist()
        answered = [n for n, row in enumerate(rows) if row["status"] in ANSWERED]
        pictures = batch["picture"].take(pa.array(answered, pa.int64())).to_pylist()
        ranked = self._rerank([rows[n] for n in answered], [unpacked(picture) for picture in pictures])
        seconds = np.zeros(len(rows), np.float32)
        seconds[[n for n, asked in zip(answered, ranked, strict=True) if asked]] = time.perf_counter() - start
        seconds /= max(1, sum(ranked))
        seconds += batch["rank_s"].fill_null(0).to_numpy()  # of rankers before this one
        done = self._confidence.renew(_with(batch, rows, seconds))
        return done if self._keep_picture else done.drop_columns(["picture"])

    def _rerank(self, rows: list[dict], pictures: list[np.ndarray | None]) -> list[bool]:
        """Puts photos' answers right, in place. Returns which of them the ranker was to look at."""
        lists = [sorted(row["candidates"], key=lambda c: -c[self._by]) for row in rows]
        agreed = [self._agree(candidates) for candidates in lists]
        shown = [n for n, picture in enumerate(pictures) if picture is not None and not agreed[n]]
        scores = dict(zip(shown, self._ranker.rank([self._query(pictures[n], lists[n]) for n in shown]), strict=True))
        for n, row in enumerate(rows):
            found = scores.get(n, NO_PICTURE)
            if isinstance(found, np.ndarray):
                row |= {"method": self._name, "candidates": _ranked(lists[n], found), "error_kind": None, "error": None}
                continue
            row["candidates"] = [c | {"score": c["score"] * self._scale_before} for c in row["candidates"]]
            row["method"] += f" ({AGREED if agreed[n] else FAILED})"
            if not agreed[n]:
                row |= {"error_kind": found.kind, "error": found.message}
        return [not agrees for agrees in agreed]

    def _agree(self, candidates: list[dict]) -> bool:
        if self._options.skip_within_km is None:
            return False
        lat, lon = (np.array([c[name] for c in candidates[:AGREEING]]) for name in ("lat", "lon"))
        return haversine_km(lat[:, None], lon[:, None], lat, lon).max() <= self._options.skip_within_km

    def _query(self, picture: np.ndarray, candidates: list[dict]) -> RankQuery:
        rows = [candidate["reference_id"] for candidate in candidates]
        options = self._options
        ranked = rows[: options.ranked]
        negatives = negatives_of(options.template, rows, options.ranked, options.negatives)
        words = dict(zip(rows, self._index.place.take(pa.array(rows)).to_pylist(), strict=True))
        places = {row: self._place(row, words[row]) for row in {*ranked, *negatives}}
        return RankQuery(
            picture,
            [RankCandidate(places[row], self._index.thumbnail(row), row) for row in ranked],
            [places[row] for row in negatives],
        )

    def _place(self, row: int, names: dict | None) -> PromptPlace:
        words = place_words(*((names or {}).get(name) for name in ("city", "region", "country")))
        return PromptPlace(float(self._index.lat[row]), float(self._index.lon[row]), words)


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
