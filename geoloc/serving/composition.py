"""What the archive job makes its estimates of, put together from the service's options. Without torch or Ray."""

import functools
from dataclasses import dataclass

from geoloc.encoders.presets import PARTS, Preset, preset
from geoloc.estimate.calibration import Calibration, read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.options import LocatorOptions
from geoloc.index.store import IndexInfo, cache_folder
from geoloc.pipeline.indexes import check_index, find_index
from geoloc.pipeline.options import RankingOptions, parse_parts
from geoloc.pipeline.settings import estimate_settings, ranker_settings
from geoloc.ranking.choosers import GEORANKER, check_chooser, score_scale
from geoloc.ranking.options import RankerOptions, RerankOptions
from geoloc.serving.options import ModelOptions
from geoloc.storage import Folder, S3Options

S3 = S3Options()


@dataclass(frozen=True)
class Composition:
    options: ModelOptions

    def check(self) -> None:
        """Raises UsageError for what can be told without loading models."""
        check_chooser(self.options.chooser, self.preset)
        self._parts()
        self._ranking.check(self.options.candidates, S3)
        self.confidence()
        check_index(self.options.index, self.preset, self.options.candidates, S3)

    @functools.cached_property
    def preset(self) -> Preset:
        return preset(self.options.preset, self.options.model)

    @property
    def ranked(self) -> bool:
        return self._ranking.ranker is not None

    def index(self) -> Folder:
        """On this machine, checked. Raises UsageError."""
        cache = Folder(str(cache_folder()))
        return find_index(self.options.index, self.preset, self.options.candidates, cache)[0]

    def locator(self, index: Folder) -> LocatorOptions:
        return LocatorOptions(
            self.preset,
            index,
            self.options.candidates,
            self.options.chooser,
            self.options.density_sigma_km,
            self._parts(),
            calibration=None if self.ranked else self._calibration,
            ranked=self.ranked,
        )

    def ranker(self) -> RankerOptions:
        return self._ranking.model(S3)

    def rerank(self) -> RerankOptions:
        return self._ranking.rerank(self.options.candidates, S3, score_scale(self.options.chooser, self.preset))

    def confidence(self) -> Confidence:
        """Of the last stage."""
        chooser = self._ranking.ranker or self.options.chooser
        return Confidence(score_scale(chooser, self.preset), self._calibration)

    def check_calibration(self, encoder: str, index: IndexInfo, ranker: str | None) -> None:
        """Raises UsageError where it was made for other estimates; ``encoder`` and ``ranker`` are fingerprints."""
        if calibration := self._calibration:
            settings = estimate_settings(self.options, self.preset, encoder, index)
            if ranker:
                settings |= ranker_settings(self._ranking, self.options.candidates, S3, ranker)
            calibration.check(settings, f"--calibration {self.options.calibration}")

    @property
    def _ranking(self) -> RankingOptions:
        options = self.options
        return RankingOptions(
            GEORANKER if options.ranker_model or options.ranker_adapter else None,
            options.ranker_model,
            options.ranker_adapter,
            options.ranker_candidates,
            options.ranker_max_pixels,
            skip_ranking_within_km=options.skip_ranking_within_km,
        )

    def _parts(self) -> tuple[str, ...]:
        return parse_parts(self.options.parts, self.preset) if self.options.parts else PARTS

    @functools.cached_property
    def _calibration(self) -> Calibration | None:
        return read_calibration(self.options.calibration, S3) if self.options.calibration else None
