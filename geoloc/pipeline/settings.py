"""What decides estimates: a run goes on only with the same, and a calibration serves only the same."""

from dataclasses import asdict
from typing import Protocol

from geoloc.encoders.presets import Preset
from geoloc.index.store import IndexInfo
from geoloc.pipeline.options import RankingOptions
from geoloc.storage import S3Options

SOURCE_SETTINGS = ("source", "relocate", "max_photo_mb", "max_megapixels", "exact_decode")
"""What a run has beside them: they decide which photos it looks at, and how closely."""


class EstimateOptions(Protocol):
    model: str | None
    candidates: int
    chooser: str
    density_sigma_km: float
    parts: str | None


def estimate_settings(options: EstimateOptions, models: Preset, encoder: str, index: IndexInfo) -> dict:
    """``encoder`` is its fingerprint."""
    settings = {
        "preset": models.name,
        "model": options.model,
        "encoder": encoder,
        "index": index.fingerprint,
        "candidates": options.candidates,
        "chooser": options.chooser,
        "parts": options.parts,
    }
    return settings | ({"density_sigma_km": options.density_sigma_km} if options.chooser == "density" else {})


def ranker_settings(options: RankingOptions, candidates: int, s3: S3Options, fingerprint: str) -> dict:
    return {
        "ranker": fingerprint,
        "ranker_prompt": asdict(options.model(s3).prompt),
        "ranker_candidates": options.rerank(candidates, s3).ranked,
        "skip_ranking_within_km": options.skip_ranking_within_km,
    }
