"""The stages as Ray Serve holds them: batches of whatever requests are there, models that are changed while it serves."""

import asyncio
import io
from collections.abc import Callable

import pyarrow as pa
from PIL import Image
from ray import serve

from geoloc.photos.examine import DecodeOptions
from geoloc.serving.batching import Batcher
from geoloc.serving.decoding import Decoders
from geoloc.serving.measures import measures
from geoloc.serving.options import DeploymentOptions, ModelOptions

HEALTH_CHECK_S = 30
HEALTH = "the health check"
"""One who asks, as others do, and has his turn among them: decoders that are busy are no sign of illness."""
STUCK_S = 300
"""No batch takes so long, even of a large ranker on a CPU."""


class Locating:
    """Photos to rows of LOCATED, in the process that is asked: retrieval is cheaper than another hop."""

    def __init__(self, options: DeploymentOptions, device: str, threads: int) -> None:
        self._options, self._device, self._threads = options, device, threads
        self._batcher = Batcher(_run_batch, options.batch_size, at_once=2)

    async def take_up(self, options: ModelOptions) -> None:
        """Loads models; those before them answer until then."""
        self._stage, self._decoders = await asyncio.to_thread(self._load, options)

    def _load(self, options: ModelOptions):
        from geoloc.serving.stages import Retrieval  # needs torch (geoloc.recipes.stage)

        _limit_threads(self._threads)
        stage, most = Retrieval(options, self._device, self._threads), int(self._options.max_megapixels * 1e6)
        decode = DecodeOptions(stage.view, most, self._options.max_decode_seconds, picture_view=stage.picture_view)
        decoders = Decoders(decode, self._threads)
        decoders.start()
        return stage, decoders

    async def locate(self, data: bytes | bytearray, client: str) -> pa.Table:
        """A photo's row, for whoever sent it."""
        stage = self._stage
        loaded = await self._decoders.load(data, client)
        return await self._batcher((stage.locate, loaded))

    @property
    def wait_s(self) -> float:
        """What there is to do for those who have come before, about."""
        return self._batcher.wait_s

    @property
    def facts(self) -> dict:
        return self._stage.facts

    def thumbnail(self, row: int) -> bytes | None:
        """Of a reference; None where it has none, or there is no such reference."""
        index = self._stage.index
        return index.thumbnail(row) if 0 <= row < index.rows else None

    async def check_health(self) -> None:
        """Whether they answer those who ask; where nobody does, a picture through the models. Raises RuntimeError."""
        if _busy(self._batcher):
            return
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
        row = await asyncio.wait_for(self.locate(buffer.getvalue(), HEALTH), HEALTH_CHECK_S)
        if row["status"][0].as_py() == "failed":
            raise RuntimeError(f"the models do not answer: {row['error'][0]}")


@serve.deployment
class RankingModels:
    """Behind the API, where answers are ranked. Its models come as ``user_config``."""

    def __init__(self, device: str, threads: int, batch_size: int) -> None:
        self._device, self._threads = device, threads
        self._batcher = Batcher(_run_batch, batch_size)

    async def reconfigure(self, config: dict) -> None:
        self._stage = await asyncio.to_thread(self._load, ModelOptions(**config))

    def _load(self, options: ModelOptions):
        from geoloc.serving.stages import Ranking

        stage = Ranking(options, self._device, self._threads)
        _limit_threads(self._threads, models=True)
        return stage

    async def rank(self, located: pa.Table) -> pa.Table:
        """A photo's row of LOCATED, with ``picture``, to one that is ranked."""
        return await self._batcher((self._stage.rank, located))

    async def check_health(self) -> None:
        """Whether it answers those who ask; where nobody does, a picture through it. Raises RuntimeError."""
        if _busy(self._batcher):
            return
        if error := await asyncio.wait_for(self._batcher((self._stage.check, None)), HEALTH_CHECK_S):
            raise RuntimeError(f"the ranker does not answer: {error}")


def _busy(batcher: Batcher) -> bool:
    """Raises RuntimeError where it is busy with something that does not end."""
    since = batcher.busy_s
    if since is not None and since > STUCK_S:
        raise RuntimeError(f"the models have been at one batch for {since:.0f} s")
    return since is not None


def _run_batch(requests: list[tuple[Callable[[list], list], object]]) -> list:
    """What each request asks of its function, each function once; before and after models were changed they are not the same."""
    answers = {}
    for function in dict.fromkeys(function for function, _ in requests):
        mine = [number for number, (other, _) in enumerate(requests) if other == function]
        measures().batch.observe(len(mine), tags={"stage": function.__name__})
        answers |= zip(mine, function([requests[number][1] for number in mine]), strict=True)
    return [answers[number] for number in range(len(requests))]


def _limit_threads(threads: int, models: bool = False) -> None:
    """As geoloc.pipeline.models: the encoder spreads photos over threads itself, the ranker leaves it to torch."""
    import faiss
    import torch

    torch.set_num_threads(threads if models else 1)
    faiss.omp_set_num_threads(threads)
