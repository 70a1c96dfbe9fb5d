"""Options that jobs share. Reading them needs no Ray."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.errors import CLASSES, UsageError
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.fetch import FetchOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.views import View
from geoloc.ranking.choosers import check_chooser
from geoloc.ranking.hub import adapter_folder
from geoloc.ranking.options import RankerOptions, RerankOptions, prompt_of
from geoloc.schema import MAX_CANDIDATES
from geoloc.storage import S3Options

DAY_S = 86_400


@dataclass(frozen=True)
class PhotoOptions:
    max_photo_mb: float = 64
    """Largest file that is fetched, MB (2^20 bytes); a larger one fails as too_large."""
    max_megapixels: float = 200
    """Largest picture that is decoded, millions of pixels; a larger one fails as too_many_pixels."""
    max_decode_seconds: float = 60
    """Processor time that decoding one may take; a photo that takes longer fails as too_slow."""
    exact_decode: bool = False
    """Decode photos whole before they are scaled, as the published codes do: a JPEG more than three times as large as what a
    model looks at is otherwise decoded at a smaller scale, which is several times faster."""
    fetch_concurrency: int = 32
    """Requests under way at once, a loading task."""

    retry: tuple[str, ...] = ("access", "passing")
    """Failures of earlier runs to try again: kinds such as truncated, classes (access: forbidden, kms, not_found,
    archived; passing: network, throttled, changed, crashed; permanent: the rest), or none."""
    max_failing_share: float = 0.5
    """Stop where more than this share of the last thousand photos cannot be had (access, network); 1 never stops."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("max_photo_mb", "max_megapixels", "max_decode_seconds", "fetch_concurrency", "max_failing_share"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if self.max_decode_seconds > DAY_S:
            raise UsageError(f"--max-decode-seconds {self.max_decode_seconds:g}: must be at most {DAY_S}")
        self.retry_kinds()

    def retry_kinds(self) -> set[str]:
        """Raises UsageError."""
        kinds = {kind for name in CLASSES for kind in CLASSES[name]}
        known = CLASSES | {kind: (kind,) for kind in kinds} | {"none": ()}
        for name in self.retry:
            if name not in known:
                raise UsageError(f"--retry {name}: there is {', '.join([*CLASSES, 'none', *sorted(kinds)])}")
        return {kind for name in self.retry for kind in known[name]}

    def load_options(self, view: View, s3: S3Options, **others: object) -> LoadOptions:
        fetch = FetchOptions(int(self.max_photo_mb * 2**20), self.fetch_concurrency, s3=s3)
        pixels = int(self.max_megapixels * 1e6)
        return LoadOptions(DecodeOptions(view, pixels, self.max_decode_seconds, self.exact_decode, **others), fetch)


@dataclass(frozen=True)
class ClusterOptions:
    gpus: int | None = None
    """GPUs to use in all (default: those the cluster has; 0: run the models on CPUs)."""
    gpus_per_actor: int = 1
    """GPUs that share one copy of the index, where it does not fit on one."""
    batch_size: int | None = None
    """Photos the models take at once (default: 256 on a GPU, 16 a CPU core)."""
    wait_minutes: float = 0
    """How long to wait for the cluster to grow to what the plan needs, minutes."""


@dataclass(frozen=True)
class RankingOptions:
    ranker: Literal["georanker"] | None = None
    """Have a vision-language model compare the photo with the retrieved places, instead of taking the chooser's."""
    ranker_model: str | None = None
    """Its base model: a Qwen2-VL folder that every node has, or its name on the model hub."""
    ranker_adapter: str | None = None
    """Its adapter: a folder from train_ranker.py, s3:// or local; GeoRanker's released one; or a name on the model hub."""
    ranker_candidates: int | None = None
    """How many of the retrieved places it ranks (default: all but those that its prompt tells as negatives)."""
    ranker_max_pixels: int | None = None
    """Area that pictures are scaled down to for it; 784 pixels are a token (default: what it was trained with, or 200704)."""
    ranker_cache_gb: float = 2
    """Memory of each ranker for features of reference photos, GB (2^30 bytes)."""
    skip_ranking_within_km: float | None = None
    """Keep the chooser's answer where the five most similar places lie within this of each other, km (default: rank all)."""

    def check(self, candidates: int, s3: S3Options) -> None:
        """Raises UsageError."""
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        if self.ranker is None:
            for name in given:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)}: is about the ranker; add --ranker georanker"
                )
            return
        for name in ("ranker_model", "ranker_adapter"):
            if getattr(self, name) is None:
                raise UsageError(f"--ranker {self.ranker}: needs --{name.replace('_', '-')}")
        for name in ("ranker_max_pixels", "ranker_cache_gb", "skip_ranking_within_km"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must not be below 0")
        self.rerank(candidates, s3)

    def model(self, s3: S3Options) -> RankerOptions:
        """Raises UsageError."""
        adapter = adapter_folder(self.ranker_adapter, s3)
        prompt = prompt_of(adapter)
        if self.ranker_max_pixels:
            prompt = dataclasses.replace(prompt, max_pixels=self.ranker_max_pixels)
            prompt.check()
        return RankerOptions(self.ranker_model, adapter, prompt, self.ranker_cache_gb)

    def rerank(self, candidates: int, s3: S3Options, retrieval_scale: float = 1.0) -> RerankOptions:
        """Raises UsageError."""
        prompt = prompt_of(adapter_folder(self.ranker_adapter, s3))
        others = candidates - prompt.negatives
        ranked = others if self.ranker_candidates is None else self.ranker_candidates
        if not 1 <= ranked <= (candidates if prompt.template == "georanker" else others):
            raise UsageError(
                f"--candidates {candidates}: the ranker's prompt tells {prompt.negatives} of them as negatives, and it cannot "
                f"rank {ranked} of the rest (--ranker-candidates)"
            )
        return RerankOptions(ranked, prompt.negatives, prompt.template, self.skip_ranking_within_km, retrieval_scale)


def parse_parts(text: str, models: Preset) -> tuple[str, ...]:
    """Of ``image+location``. Raises UsageError."""
    parts = tuple(text.split("+"))
    if models.alignment is None:
        raise UsageError(f"--parts {text}: preset {models.name} has one part only; use a trained alignment")
    if not set(parts) <= set(PARTS) or len(set(parts)) < len(parts):
        raise UsageError(f"--parts {text}: there is {', '.join(PARTS)}, to be joined by +")
    return tuple(part for part in PARTS if part in parts)


@dataclass(frozen=True)
class LocateOptions:
    images: str | None = None
    """Where the truth's photos are (s3:// prefix, folder, or table with a column `uri`): locate them, with every
    combination of --choosers and --candidates, and judge those answers too."""
    index: str | None = None
    """Index folder from build_index.py (default: the preset's own gallery of coordinates, where it has one)."""
    preset: str = "geoclip"
    """Models: geoclip, lite, or a folder from train_alignment.py."""
    model: str | None = None
    """Another image tower for the preset: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    choosers: tuple[str, ...] = ()
    """Ways of choosing to compare (default: all that the preset can serve)."""
    candidates: tuple[int, ...] = (20,)
    """Numbers of places retrieved, to compare."""
    parts: tuple[str, ...] = ()
    """Parts of an aligned vector to compare, joined by +, such as image image+location image+text+location (default: all
    three together)."""
    density_sigma_km: float = 445
    """Width of the density chooser's kernel, km."""
    ten_crop: bool = False
    """Average similarities over ten crops of every photo (five, and their mirror images), as papers do."""
    photos: Annotated[PhotoOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=lambda: PhotoOptions(exact_decode=True)
    )
    cluster: Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ClusterOptions)

    def vector_parts(self, models: Preset) -> list[tuple[str, ...]]:
        """Raises UsageError for parts that there are not."""
        return [parse_parts(text, models) for text in self.parts] or [PARTS]

    def check(self, s3: S3Options) -> None:
        """Raises UsageError for what can be told without looking at any photo."""
        self.photos.check()
        models = preset(self.preset, self.model, s3)
        self.vector_parts(models)
        for chooser in self.choosers:
            check_chooser(chooser, models)
        for count in self.candidates:
            if not 1 <= count <= MAX_CANDIDATES:
                raise UsageError(f"--candidates {count}: must be from 1 to {MAX_CANDIDATES}")
        if self.density_sigma_km <= 0:
            raise UsageError(f"--density-sigma-km {self.density_sigma_km}: must be above 0")
