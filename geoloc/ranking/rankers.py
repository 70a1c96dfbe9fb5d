"""Rankers as recipes name them."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Self

from geoloc.encoders.config import EncoderConfig
from geoloc.errors import UsageError
from geoloc.ranking.hub import adapter_folder
from geoloc.ranking.options import RankerOptions, prompt_of
from geoloc.ranking.scorers import Rank, Ranker, RankerFacts, RankOptions
from geoloc.storage import S3Options


@dataclass(frozen=True)
class GeoRanker(Ranker):
    """A vision-language model compares the photo with each retrieved place (GeoRanker §3.2)."""

    name: ClassVar[str] = "georanker"
    paths: ClassVar[tuple[str, ...]] = ("model", "adapter")
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
        self.options(candidates, s3)

    def pinned(self, s3: S3Options) -> Self:
        return dataclasses.replace(self, adapter=adapter_folder(self.adapter, s3).uri)

    def settings(self, candidates: int, s3: S3Options) -> dict:
        prompt, options = self._options(s3).prompt, self.options(candidates, s3)
        return {
            "prompt": dataclasses.asdict(prompt),
            "candidates": options.ranked,
            "skip_within_km": self.skip_within_km,
        } | ({"enrich_generated": True} if self.enrich_generated else {})

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
