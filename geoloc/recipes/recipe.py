"""How photos are located, as plain data: what the method is made of, and nothing about clusters or storage."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from geoloc.candidates.options import Generation
from geoloc.encoders.config import ENCODERS, EncoderConfig, encoder_config, parse_parts
from geoloc.errors import UsageError
from geoloc.estimate.abstention import Abstention
from geoloc.ranking.choosers import Light, Top1
from geoloc.ranking.scorers import Chooser, Ranker, RankOptions, Scorer
from geoloc.schema import MAX_CANDIDATES
from geoloc.storage import Folder, S3Options

SETTINGS = frozenset(("encoder", "model", "index", "candidates", "parts", "generation", "scorers", "weights"))
"""What a run's settings have beside those of each scorer (Method.settings)."""


@dataclass(frozen=True)
class Retrieval:
    """Candidates from indexes: the places of the most similar references."""

    index: tuple[str, ...] = ()
    """Folders; ``gallery``, or none at all, for the encoder's own gallery of coordinates. What several find is pooled."""
    candidates: int = 20
    """For a photo; of a pool, places."""
    parts: str | None = None
    """Of an aligned vector, that similarity is taken of, such as ``image+location``; None for all."""
    cells: bool = False
    """Whether the index has to be one of cells, from train_geocells.py."""


@dataclass(frozen=True)
class Recipe:
    name: str
    encoder: str = "geoclip"
    """Of images: ``geoclip``, ``lite``, or a folder from train_alignment.py (geoloc.encoders.config)."""
    model: str | None = None
    """Another image tower for the encoder."""
    retrieval: Retrieval = dataclasses.field(default_factory=Retrieval)
    scorers: tuple[Scorer, ...] = (Top1(),)
    """In their order, each working on what the one before it says: a chooser, rankers, or a chooser and rankers."""
    calibration: str | None = None
    """calibration.json, or the folder with it, that makes probabilities of confidences."""
    min_confidence: str | None = None
    """Photos with less are ``uncertain``, such as ``25km:0.5``."""
    generation: Generation | None = None
    """Candidates from a vision-language model, beside those that are retrieved."""

    @property
    def chooser(self) -> Chooser:
        return self.scorers[0] if self.scorers and isinstance(self.scorers[0], Chooser) else Top1()

    @property
    def rankers(self) -> tuple[Ranker, ...]:
        return tuple(scorer for scorer in self.scorers if isinstance(scorer, Ranker))

    def pinned(self, s3: S3Options) -> "Recipe":
        """What means the same wherever and whenever it is read: paths absolute, revisions named. Raises UsageError."""
        retrieval = dataclasses.replace(self.retrieval, index=tuple(_absolute(index) for index in self.retrieval.index))
        scorers = (
            dataclasses.replace(scorer, **{name: _absolute(getattr(scorer, name)) for name in scorer.paths}).pinned(s3)
            for scorer in self.scorers
        )
        return dataclasses.replace(
            self,
            generation=self._pinned_generation(),
            encoder=self.encoder if self.encoder in ENCODERS else _absolute(self.encoder),
            model=_absolute(self.model, "local-dir:"),
            retrieval=retrieval,
            scorers=tuple(scorers),
            calibration=_absolute(self.calibration),
        )

    def _pinned_generation(self) -> Generation | None:
        if self.generation is None:
            return None
        engine = self.generation.engine
        engine = dataclasses.replace(engine, replies=_absolute(engine.replies))
        if engine.kind in ("transformers", "vllm"):
            engine = dataclasses.replace(engine, model=_absolute(engine.model))
        gate = dataclasses.replace(self.generation.gate, calibration=_absolute(self.generation.gate.calibration))
        cache = self.generation.cache
        if cache is not None:
            cache = Folder(cache).uri
        return dataclasses.replace(self.generation, engine=engine, gate=gate, cache=cache)

    @property
    def retrieving(self) -> "Recipe":
        """What of it comes before a model is asked for candidates."""
        calibration = self.generation.gate.calibration if self.generation else None
        return dataclasses.replace(
            self, generation=None, scorers=(self.chooser,), calibration=calibration, min_confidence=None
        )

    @property
    def unranked(self) -> "Recipe":
        """What of it comes before its rankers, uncalibrated."""
        return dataclasses.replace(self, scorers=(self.chooser,), calibration=None, min_confidence=None)

    def rank_options(self, s3: S3Options) -> list[RankOptions]:
        """Of each ranker, which has the candidates that the one before it has ranked."""
        found, candidates = [], self.retrieval.candidates
        for ranker in self.rankers:
            found.append(ranker.options(candidates, s3))
            candidates = found[-1].ranked
        return found

    def encoder_config(self, s3: S3Options) -> EncoderConfig:
        """Raises UsageError where there is no such encoder."""
        return encoder_config(self.encoder, self.model, s3)

    def scale(self, s3: S3Options) -> float:
        """Of the last scorer's scores, by which confidence is told."""
        return [self.chooser, *self.rankers][-1].scale(self.encoder_config(s3))

    def check(self, s3: S3Options) -> None:
        """Raises UsageError for what can be told without loading models or looking at any photo."""
        if isinstance(self.chooser, Light) and self.retrieval.parts is not None:
            raise UsageError(
                f"--parts {self.retrieval.parts}: a light ranker learned from all parts of vectors; leave it out"
            )
        config, candidates = self.encoder_config(s3), self.retrieval.candidates
        parse_parts(self.retrieval.parts, config)
        if not 1 <= candidates <= MAX_CANDIDATES:
            raise UsageError(f"--candidates {candidates}: must be from 1 to {MAX_CANDIDATES}")
        if nameless := [type(s).__name__ for s in self.scorers if not isinstance(getattr(s, "name", None), str)]:
            raise UsageError(f"--recipe {self.name}: {nameless[0]} has no name (a class attribute `name`)")
        if not self.scorers or any(isinstance(scorer, Chooser) for scorer in self.scorers[1:]):
            names = ", ".join(scorer.name for scorer in self.scorers) or "none"
            raise UsageError(f"--recipe {self.name}: its scorers are {names}; a chooser can only be the first of them")
        names = [scorer.name for scorer in self.scorers]
        if len(set(names)) < len(names) or not SETTINGS.isdisjoint(names):
            raise UsageError(
                f"--recipe {self.name}: its scorers are called {', '.join(names)}; they need names of their own, other than "
                f"{', '.join(sorted(SETTINGS))}"
            )
        if strange := [type(s).__name__ for s in self.scorers if not isinstance(s, (Chooser, Ranker))]:
            raise UsageError(
                f"--recipe {self.name}: {strange[0]} is neither a Chooser nor a Ranker (geoloc.ranking.scorers)"
            )
        if self.generation:
            self.generation.check()
            if isinstance(self.chooser, Light):
                raise UsageError(
                    f"--light-ranker {self.chooser.folder}: knows no evidence for places that a model names; recipe {self.name} asks one"
                )
            if self.generation.references > candidates:
                raise UsageError(
                    f"--candidates {candidates}: its prompts tell the {self.generation.references} most similar references "
                    f"(--prompts {' '.join(self.generation.prompts)})"
                )
        self.chooser.check(config, candidates, s3)
        for ranker in self.rankers:
            ranker.check(config, candidates, s3)
            candidates = ranker.options(candidates, s3).ranked
        if self.min_confidence is not None:
            Abstention.parse(self.min_confidence)
            if self.calibration is None:
                raise UsageError(f"--min-confidence {self.min_confidence}: speaks of probabilities; add --calibration")


def _absolute(name: str | None, prefix: str = "") -> str | None:
    """A name is a path if such a file or folder is there; else it may be a model's."""
    if not name or not name.startswith(prefix):
        return name
    path = Path(name.removeprefix(prefix)).expanduser()
    return f"{prefix}{path.absolute()}" if path.exists() else name
