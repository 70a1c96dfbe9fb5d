"""The archive job's own stages, put together from the service's options. Ray-free."""

from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from geoloc.encoders.presets import preset
from geoloc.errors import PhotoError
from geoloc.estimate.calibration import read_calibration
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.estimate.reranker import Reranker
from geoloc.index.store import Index, cache_folder, local_copy
from geoloc.photos.load import LoadOptions, load_one
from geoloc.pipeline.indexes import check_encoder, find_index
from geoloc.pipeline.options import RankingOptions
from geoloc.ranking.choosers import GEORANKER, check_chooser, score_scale
from geoloc.ranking.georanker import check_ranker
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.scorer import RankCandidate, Ranker, RankQuery
from geoloc.serving.options import ModelOptions
from geoloc.storage import Folder, S3Options


@dataclass(frozen=True)
class Composition:
    """What both stages are made of. Raises UsageError where the options do not go together."""

    options: ModelOptions

    def __post_init__(self) -> None:
        check_chooser(self.options.chooser, self.preset)
        self.ranking.check(self.options.candidates, S3Options())

    @property
    def preset(self):
        return preset(self.options.preset, self.options.model)

    @property
    def ranking(self) -> RankingOptions:
        options = self.options
        ranker = GEORANKER if options.ranker_model or options.ranker_adapter else None
        return RankingOptions(
            ranker,
            options.ranker_model,
            options.ranker_adapter,
            options.ranker_candidates,
            options.ranker_max_pixels,
            skip_ranking_within_km=options.skip_ranking_within_km,
        )

    def index(self) -> Folder:
        folder, _ = find_index(self.options.index, self.preset, self.options.candidates, Folder(str(cache_folder())))
        return folder

    def confidence(self) -> Confidence:
        """Of the last stage."""
        calibration = read_calibration(self.options.calibration, S3Options()) if self.options.calibration else None
        return Confidence(score_scale(self.ranking.ranker or self.options.chooser, self.preset), calibration)


class Retrieval:
    """A photo's bytes to a row of LOCATED, with ``picture`` where it is to be ranked."""

    def __init__(self, options: ModelOptions, max_pixels: int, device: str = "cpu", threads: int = 1) -> None:
        parts = Composition(options)
        index = parts.index()
        self.ranked = parts.ranking.ranker is not None
        self._locator = Locator(
            LocatorOptions(
                parts.preset,
                index,
                options.candidates,
                options.chooser,
                options.density_sigma_km,
                calibration=None if self.ranked else parts.confidence().calibration,
                ranked=self.ranked,
            ),
            device,
            threads,
        )
        self.index = self._locator.index
        check_encoder(index, self.index.info, parts.preset, self._locator.encoder_fingerprint)
        view = check_ranker(parts.ranking.model(S3Options()))[0] if self.ranked else None
        self._load = LoadOptions(self._locator.view, max_pixels=max_pixels, picture_view=view)
        info = self.index.info
        self.facts = {
            "preset": parts.preset.name,
            "model": parts.preset.model,
            "encoder": self._locator.encoder_fingerprint,
            "index": {"fingerprint": info.fingerprint, "kind": info.kind, "rows": info.rows},
            "candidates": options.candidates,
            "chooser": options.chooser,
            "ranker": options.ranker_adapter,
            "calibrated": options.calibration is not None,
        }

    def load(self, data: bytes) -> pa.Table:
        """LOADED, one row; a photo that cannot be used is ``failed``."""
        return load_one(data, self._load)

    def locate(self, loaded: list[pa.Table]) -> list[pa.Table]:
        done = self._locator.locate(pa.concat_tables(loaded))
        return [done.slice(row, 1) for row in range(done.num_rows)]


class Ranking:
    """Rows of LOCATED to rows of LOCATED."""

    def __init__(self, options: ModelOptions, device: str = "cpu", threads: int = 1) -> None:
        parts = Composition(options)
        scale = score_scale(options.chooser, parts.preset)
        self._ranker = Ranker.load(parts.ranking.model(S3Options()), device, threads)
        self._reranker = Reranker(
            self._ranker,
            Index(local_copy(parts.index())),
            parts.ranking.rerank(options.candidates, S3Options(), scale),
            parts.confidence(),
        )

    def rank(self, located: list[pa.Table]) -> list[pa.Table]:
        done = self._reranker.rerank(pa.concat_tables(located))
        return [done.slice(row, 1) for row in range(done.num_rows)]

    def check(self, asked: list[None]) -> list[PhotoError | None]:
        """What is wrong when the ranker is to tell how near nowhere is to a grey picture."""
        grey = self._ranker.view.of(Image.new("RGB", (64, 64), "grey"))
        answers = self._ranker.rank([RankQuery(grey, [RankCandidate(PromptPlace(0, 0))]) for _ in asked])
        return [found if isinstance(found, PhotoError) else None for found in answers]
