"""Rankers as recipes name them."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.estimate.gate import Gate, Worth, read_gate
from geoloc.ranking.hub import adapter_folder
from geoloc.ranking.options import RankerOptions, prompt_of
from geoloc.ranking.scorers import Rank, Ranker, RankerFacts, RankOptions
from geoloc.storage import S3Options


@dataclass(frozen=True)
class GeoRanker(Ranker):
    """A vision-language model compares the photo with each retrieved place (GeoRanker §3.2)."""

    name: ClassVar[str] = "georanker"
    paths: ClassVar[tuple[str, ...]] = ("model", "adapter", "gate")
    model: str | None = None
    """Its base model: a Qwen2-VL folder that every node has, or its name on the model hub."""
    adapter: str | None = None
    """A folder from train_ranker.py, s3:// or local; GeoRanker's released one; or a name on the model hub."""
    candidates: int | None = None
    """How many of the retrieved places it ranks; None for all but those that its prompt tells as negatives."""
    max_pixels: int | None = None
    """Area that pictures are scaled down to; 784 pixels are a token. None for what it was trained with."""
    cache_gb: float = 2.0
    """Memory for features of reference photos, GB (2^30 bytes)."""
    skip_within_km: float | None = None
    """Keep the chooser's answer where the five most similar places lie within this of each other; None to rank all."""
    gate: str | None = None
    """From train_gate.py: it ranks those photos alone that promise something."""
    gate_share: float | None = None
    """Of photos, that it ranks about so many of."""
    gate_risk: float | None = None
    """Instead, points of accuracy at 25 km that may be lost to ranking all."""
    enrich_generated: bool = False
    """Tell it more of generated candidates than their coordinates: the names of the place, and the picture of a reference within a
    kilometre. As published, coordinates are all."""

    def check(self, config: EncoderConfig, candidates: int, s3: S3Options) -> None:
        for name in ("model", "adapter"):
            if getattr(self, name) is None:
                raise UsageError(f"--ranker-{name}: a recipe with {self.name} needs it")
        for name in ("max_pixels", "cache_gb"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"--ranker-{name.replace('_', '-')} {getattr(self, name)}: must not be below 0")
        if (self.skip_within_km or 0) < 0:
            raise UsageError(f"--skip-ranking-within-km {self.skip_within_km}: must not be below 0")
        self._check_gate(s3)
        self.options(candidates, s3)

    def _check_gate(self, s3: S3Options) -> None:
        given = {"share": self.gate_share, "risk": self.gate_risk}
        given = {f"--heavy-{name}": value for name, value in given.items() if value is not None}
        if self.gate is None and given:
            option, value = next(iter(given.items()))
            raise UsageError(f"{option} {value:g}: add --heavy-gate, which says what is expected of a photo")
        if self.gate is not None and len(given) != 1:
            raise UsageError(f"--heavy-gate {self.gate}: needs --heavy-share or --heavy-risk, one of them")
        if self.gate_share is not None and not 0 < self.gate_share <= 1:
            raise UsageError(f"--heavy-share {self.gate_share:g}: must be above 0 and at most 1")
        if self.gate_risk is not None and not 0 < self.gate_risk < 100:
            raise UsageError(f"--heavy-risk {self.gate_risk:g}: is points of accuracy, above 0 and below 100")
        self.worth(s3)

    def read_gate(self, s3: S3Options) -> Gate | None:
        return None if self.gate is None else read_gate(self.gate, s3)

    def worth(self, s3: S3Options) -> Worth | None:
        gate = self.read_gate(s3)
        if gate is None:
            return None
        by_share = self.gate_share is not None
        limit = gate.threshold_of_share(self.gate_share) if by_share else gate.threshold_of_risk(self.gate_risk)
        return Worth(gate, limit)

    def pinned(self, s3: S3Options) -> Self:
        return dataclasses.replace(self, adapter=adapter_folder(self.adapter, s3).uri)

    def settings(self, candidates: int, s3: S3Options) -> dict:
        prompt, options = self._options(s3).prompt, self.options(candidates, s3)
        return (
            {
                "prompt": dataclasses.asdict(prompt),
                "candidates": options.ranked,
                "skip_within_km": self.skip_within_km,
            }
            | ({"enrich_generated": True} if self.enrich_generated else {})
            | self._gate_settings(s3)
        )

    def _gate_settings(self, s3: S3Options) -> dict:
        gate = self.read_gate(s3)
        if gate is None:
            return {}
        return {"gate": {"fingerprint": gate.fingerprint, "share": self.gate_share, "risk": self.gate_risk}}

    def probe(self, s3: S3Options) -> RankerFacts:
        from geoloc.ranking.georanker import check_ranker  # needs torch, which reading options does without

        return check_ranker(self._options(s3))

    def load(self, s3: S3Options, device: str, threads: int) -> Rank:
        from geoloc.ranking.scorer import GeoRankerScorer

        return GeoRankerScorer.load(self._options(s3), device, threads)

    def options(self, candidates: int, s3: S3Options) -> RankOptions:
        prompt = prompt_of(adapter_folder(self.adapter, s3))
        others = candidates - prompt.negatives
        ranked = others if self.candidates is None else self.candidates
        if not 1 <= ranked <= (candidates if prompt.template == "georanker" else others):
            raise UsageError(
                f"--candidates {candidates}: the ranker's prompt tells {prompt.negatives} of them as negatives, and it cannot "
                f"rank {ranked} of the rest (--ranker-candidates)"
            )
        return RankOptions(ranked, prompt.negatives, prompt.template, self.skip_within_km, self.enrich_generated)

    def _options(self, s3: S3Options) -> RankerOptions:
        """Raises UsageError."""
        adapter = adapter_folder(self.adapter, s3)
        prompt = prompt_of(adapter)
        if self.max_pixels:
            prompt = dataclasses.replace(prompt, max_pixels=self.max_pixels)
            prompt.check()
        return RankerOptions(self.model, adapter, prompt, self.cache_gb)
