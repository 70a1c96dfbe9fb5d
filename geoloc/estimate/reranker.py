"""Retrieved answers put right by a ranker: the same rows in and out, with its scores and what follows from them."""

import time

import numpy as np
import pyarrow as pa

from geoloc.errors import PhotoError
from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.geo.distance import haversine_km
from geoloc.index.store import Index
from geoloc.photos.views import unpacked
from geoloc.ranking.choosers import GEORANKER
from geoloc.ranking.options import RerankOptions
from geoloc.ranking.prompt import PromptPlace, negatives_of, place_words
from geoloc.ranking.scorer import RankCandidate, Ranker, RankQuery
from geoloc.schema import LOCATED

AGREEING = 5
"""So many of the most similar candidates have to lie close together for ranking to be skipped (GeoRanker, App. I: top-k)."""
AGREED, FAILED = "candidates agree", "ranking failed"
NO_PICTURE = PhotoError("no_picture", "the ranker cannot look at a picture of this shape")


class Reranker:
    def __init__(self, ranker: Ranker, index: Index, options: RerankOptions, confidence: Confidence) -> None:
        self._ranker, self._index, self._options, self._confidence = ranker, index, options, confidence

    def rerank(self, batch: pa.Table) -> pa.Table:
        """LOCATED with ``picture`` (Locator) to LOCATED, row for row.

        A photo's candidates are those that were ranked, best first. A photo that was not keeps the answer it had;
        ``method`` says why, and ``error_kind`` and ``error`` what was wrong with it.
        """
        start = time.perf_counter()
        rows = batch.drop_columns(["picture"]).select(["status", "method", "candidates", "error_kind", "error"])
        rows = rows.to_pylist()
        answered = [n for n, row in enumerate(rows) if row["status"] in ANSWERED]
        lists = {n: sorted(rows[n]["candidates"], key=lambda c: -c["similarity"]) for n in answered}
        agreed = {n for n in answered if self._agree(lists[n])}
        pictures = {n: unpacked(batch["picture"][n].as_py()) for n in answered if n not in agreed}
        shown = [n for n, picture in pictures.items() if picture is not None]
        found = dict.fromkeys(pictures, NO_PICTURE)
        found |= zip(shown, self._ranker.rank([self._query(pictures[n], lists[n]) for n in shown]), strict=True)
        for n in answered:
            if isinstance(found.get(n), np.ndarray):
                rows[n] |= {"method": GEORANKER, "candidates": _ranked(lists[n], found[n])}
                continue
            rows[n]["candidates"] = [
                c | {"score": c["score"] * self._options.retrieval_scale} for c in rows[n]["candidates"]
            ]
            rows[n]["method"] += f" ({AGREED if n in agreed else FAILED})"
            if n in found:
                rows[n] |= {"error_kind": found[n].kind, "error": found[n].message}
        seconds = np.zeros(len(rows), np.float32)
        seconds[list(pictures)] = (time.perf_counter() - start) / max(1, len(pictures))
        return self._confidence.renew(_with(batch.drop_columns(["picture"]), rows, seconds))

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
