"""The archive job's own stages, for whatever requests are there. Without Ray."""

import pyarrow as pa
from PIL import Image

from geoloc.errors import PhotoError
from geoloc.estimate.locator import Locator
from geoloc.estimate.reranker import Reranker
from geoloc.index.store import Index, local_copy
from geoloc.photos.views import Picture
from geoloc.pipeline.indexes import check_encoder
from geoloc.ranking.georanker import check_ranker
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.scorer import RankCandidate, Ranker, RankQuery
from geoloc.serving.composition import Composition
from geoloc.serving.options import ModelOptions


class Retrieval:
    """Rows of LOADED to rows of LOCATED, with ``picture`` where they are to be ranked."""

    def __init__(self, options: ModelOptions, device: str = "cpu", threads: int = 1) -> None:
        """Raises UsageError where the options do not go together."""
        parts = Composition(options)
        index = parts.index()
        self._locator = Locator(parts.locator(index), device, threads)
        self.index, encoder = self._locator.index, self._locator.encoder_fingerprint
        info = self.index.info
        check_encoder(index, info, parts.preset, encoder)
        self.view = self._locator.view
        self.picture_view, ranker = check_ranker(parts.ranker()) if parts.ranked else (None, None)
        parts.check_calibration(encoder, info, ranker)
        self.facts = {
            "preset": parts.preset.name,
            "model": parts.preset.model,
            "encoder": encoder,
            "index": {"fingerprint": info.fingerprint, "kind": info.kind, "rows": info.rows},
            "candidates": options.candidates,
            "chooser": options.chooser,
            "ranker": ranker,
            "calibrated": options.calibration is not None,
        }

    def locate(self, loaded: list[pa.Table]) -> list[pa.Table]:
        done = self._locator.locate(pa.concat_tables(loaded))
        return [done.slice(row, 1) for row in range(done.num_rows)]


class Ranking:
    """Rows of LOCATED to rows of LOCATED."""

    def __init__(self, options: ModelOptions, device: str = "cpu", threads: int = 1) -> None:
        parts = Composition(options)
        self._ranker = Ranker.load(parts.ranker(), device, threads)
        index = Index(local_copy(parts.index()))
        self._reranker = Reranker(self._ranker, index, parts.rerank(), parts.confidence())

    def rank(self, located: list[pa.Table]) -> list[pa.Table]:
        done = self._reranker.rerank(pa.concat_tables(located))
        return [done.slice(row, 1) for row in range(done.num_rows)]

    def check(self, asked: list[None]) -> list[PhotoError | None]:
        """What is wrong when the ranker is to tell how near nowhere is to a grey picture."""
        grey = self._ranker.view.of(Picture.of(Image.new("RGB", (64, 64), "grey")))
        answers = self._ranker.rank([RankQuery(grey, [RankCandidate(PromptPlace(0, 0))]) for _ in asked])
        return [found if isinstance(found, PhotoError) else None for found in answers]
