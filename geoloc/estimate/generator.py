"""Retrieved answers and what a vision-language model adds to them: the same rows in and out, chosen anew among all candidates."""

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from geoloc.candidates.budget import Spending
from geoloc.candidates.engine import Completion, Engine, Request
from geoloc.candidates.generated import Generated, merge
from geoloc.candidates.options import Generation
from geoloc.candidates.prompts import Prompt, prompt
from geoloc.candidates.replies import Answer, choice, parse, reason
from geoloc.errors import PhotoError
from geoloc.estimate.confidence import ANSWERED, Confidence
from geoloc.estimate.reranker import AGREED, AGREEING
from geoloc.geo.distance import haversine_km
from geoloc.ranking.candidates import Candidates
from geoloc.ranking.scorers import Score
from geoloc.schema import ASKING, LOCATED

SURE, NOT_DRAWN, FAILED = "sure enough", "not drawn", "generation failed"
UNREAD = PhotoError("unread", "the model's replies tell no place")


class Generator:
    def __init__(self, name: str, score: Score, engine: Engine, generation: Generation, confidence: Confidence) -> None:
        """``score`` and ``name`` are the chooser's."""
        self._name, self._score, self._engine = name, score, engine
        self._generation, self._confidence = generation, confidence
        prompts = [prompt(name) for name in generation.prompts]
        self._first = [one for one in prompts if not one.lists]
        self._then = [one for one in prompts if one.lists]
        self._weights = {one.name: 1 + generation.most for one in self._then}  # theirs is the last word

    def generate(self, batch: pa.Table) -> pa.Table:
        """LOCATED with ASKING (Locator) to LOCATED, row for row.

        A photo's candidates are the retrieved and the generated ones, chosen among by the recipe's chooser. A photo whose model was
        not asked, or did not answer, keeps the answer it had; ``method`` says why, and ``error_kind`` and ``error`` what was wrong.
        """
        start = time.perf_counter()
        columns = ["id", "uri", "status", "method", "confidence", "candidates", "error_kind", "error", *ASKING]
        rows = batch.select(columns).to_pylist()
        answered = [row for row in rows if row["status"] in ANSWERED]
        asked = [row for row in answered if self._is_asked(row)]
        for row in asked:
            row["candidates"] = sorted(row["candidates"], key=lambda c: c["rank"])
            row |= {"asked": True, "problem": None, "spent": Spending(), "replies": 0, "unread": 0}
        for prompts in (self._first, self._then):
            self._ask(asked, prompts)
        for row in asked:
            _settle(row)
        self._choose([row for row in asked if any(candidate["prompts"] for candidate in row["candidates"])])
        spent = (time.perf_counter() - start) / max(1, len(asked))
        seconds = np.array([spent if "asked" in row else 0.0 for row in rows], np.float32)
        return self._confidence.renew(_with(batch, rows, seconds)).drop_columns(list(ASKING))

    def _is_asked(self, row: dict) -> bool:
        """Whether the gate lets the photo through; ``method`` tells why not."""
        gate, why = self._generation.gate, None
        if gate.beyond_km is not None and _spread_km(row["candidates"]) <= gate.beyond_km:
            why = AGREED
        elif gate.below_confidence is not None and row["confidence"] >= gate.below_confidence:
            why = SURE
        elif not gate.draws(row["id"]):
            why = NOT_DRAWN
        if why:
            row["method"] += f" ({why})"
        return why is None

    def _ask(self, photos: Sequence[dict], prompts: Sequence[Prompt]) -> None:
        """Adds to each photo what the model says to these prompts."""
        asking = [(row, one) for row in photos for one in prompts]
        answers: dict[int, Completion | PhotoError] = dict(
            self._engine.complete([self._request(row, one) for row, one in asking])
        )
        generated: dict[int, list[Generated]] = {}
        for number, (row, one) in enumerate(asking):  # in the prompts' order, whenever they came
            answer = answers[number]
            if isinstance(answer, PhotoError):
                row["problem"] = answer
                continue
            if answer.paid:
                row["spent"].add(answer)
            found = [self._read(reply, one, row["candidates"]) for reply in answer.replies]
            row["replies"] += len(found)
            row["unread"] += found.count(None)
            generated.setdefault(row["id"], []).extend(read for read in found if read)
        for row in photos:
            row["candidates"] = merge(row["candidates"], generated.get(row["id"], []), self._generation.merge_within_km)

    def _request(self, row: dict, one: Prompt) -> Request:
        candidates = row["candidates"]
        similar = [(c["lat"], c["lon"]) for c in candidates if c["reference_id"] is not None]
        dissimilar = [(point["lat"], point["lon"]) for point in row["dissimilar"]]
        places = [(c["lat"], c["lon"]) for c in candidates] if one.lists else []
        samples = 1 if one.lists else self._generation.candidates
        return Request(row["uri"], one.name, one.write(similar, dissimilar, places), row["thumbnail"], samples)

    def _read(self, reply: str, one: Prompt, candidates: Sequence[dict]) -> Generated | None:
        said = reason(reply) if self._generation.keep_reasons else None
        if one.lists and (chosen := choice(reply, len(candidates))) is not None:
            place = candidates[chosen]
            return Generated(Answer(place["lat"], place["lon"]), one.name, said)
        found = parse(reply)
        return Generated(found, one.name, said) if found else None

    def _choose(self, photos: Sequence[dict]) -> None:
        if not photos:
            return
        candidates = Candidates.of([row["candidates"] for row in photos], self._weights)
        scores = self._score(np.array([row["vector"] for row in photos], np.float32), candidates)
        for row, of_photo in zip(photos, scores, strict=True):
            order = np.argsort(-of_photo[: len(row["candidates"])], kind="stable")
            row["candidates"] = [
                row["candidates"][n] | {"score": float(of_photo[n]) if np.isfinite(of_photo[n]) else None}
                for n in order
            ]
            row["method"] = self._name


def _settle(row: dict) -> None:
    """What became of asking, in the row. Some prompts may have been answered, and others not."""
    unread = row["replies"] and row["unread"] == row["replies"]
    if problem := row["problem"] or (UNREAD if unread else None):
        row |= {"error_kind": problem.kind, "error": problem.message}
    if not any(candidate["prompts"] for candidate in row["candidates"]):
        row["method"] += f" ({FAILED})"
    row["generation"] = vars(row["spent"]) | {"replies": row["replies"], "unread": row["unread"]}


def _spread_km(candidates: Sequence[dict]) -> float:
    """Between the most similar ones that are farthest apart."""
    first = sorted(candidates, key=lambda c: c["rank"])[:AGREEING]
    lat, lon = (np.array([c[axis] for c in first]) for axis in ("lat", "lon"))
    return float(haversine_km(lat[:, None], lon[:, None], lat, lon).max())


def _with(table: pa.Table, rows: Sequence[dict], seconds: np.ndarray) -> pa.Table:
    columns = {
        name: [row.get(name) for row in rows] for name in ("method", "candidates", "generation", "error_kind", "error")
    }
    columns["generate_s"] = seconds
    for name, values in columns.items():
        at, field = table.schema.get_field_index(name), LOCATED.field(name)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
