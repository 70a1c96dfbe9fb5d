"""How much of the time a GPU has nothing to do: the actors' own code, with a device that takes as long as one is assumed to.

    python -m tests.bench.bench_idle

What the CPU does is done and measured (prompts, pictures of candidates decoded, packs, pixels copied, answers put into rows);
where the models would run, the thread sleeps, as one does that waits for a device. Baseline: the same calls one after the other.
Needs no GPU, no weights and no Ray.
"""

import io
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from geoloc.encoders.config import encoder_config
from geoloc.encoders.image import ImageEncoder
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.index.build import write_index
from geoloc.index.store import IndexInfo
from geoloc.ranking.options import PromptOptions, RankerOptions
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.schema import LOADED, REFERENCE
from geoloc.storage import Folder
from geoloc.toy.models import write_qwen2_vl

SCORED_S = {256: 1 / 10.5, 64: 1 / 24}
"""Assumed of an H100, a photo of 15 candidates, by image tokens: half of its peak in bfloat16, 7B, template shared_prefix."""
ENCODED_S = 256 / 2500
"""Of 256 photos: ViT-L/14 at 336 pixels."""
PHOTOS, CANDIDATES, REFERENCES = 48, 15, 5_000


class Device:
    """One thing at a time; whoever uses it waits without the interpreter."""

    def __init__(self) -> None:
        self.busy, self._alone = 0.0, threading.Lock()

    def run(self, seconds: float) -> None:
        with self._alone:
            time.sleep(seconds)
            self.busy += seconds


def jpeg(random: np.random.Generator, side: int) -> bytes:
    pixels = np.asarray(Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).resize((side, side)))
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=85)
    return data.getvalue()


def ranker(folder: Path, tokens: int, cached: bool) -> None:
    random, side = np.random.default_rng(0), 28 * round(tokens**0.5)
    prompt = PromptOptions(min_pixels=side * side, max_pixels=side * side)
    scorer = GeoRankerScorer.load(RankerOptions(str(folder), None, prompt), threads=2)
    thumbnails = [jpeg(random, 448) for _ in range(200)]
    places = [PromptPlace(*random.uniform(-80, 80, 2).tolist(), f"City {n} Region Country") for n in range(200)]
    shown = [
        [RankCandidate(places[n], thumbnails[n], n if cached else None) for n in random.choice(200, CANDIDATES, False)]
        for _ in range(PHOTOS)
    ]
    pictures = random.integers(0, 255, (PHOTOS, side, side, 3), np.uint8)
    queries = [RankQuery(picture, own, places[:5]) for picture, own in zip(pictures, shown, strict=True)]
    if cached:
        everything = [RankCandidate(places[n], thumbnails[n], n) for n in range(200)]
        for image, _ in scorer._ahead.submit(scorer._ask, [RankQuery(pictures[0], everything)]).result().new:
            image.features = torch.zeros(scorer._prompter.tokens_of(image.grid), 64)
    device = Device()

    def encode(cuts, grids):
        return [torch.zeros(scorer._prompter.tokens_of(grid), 64) for grid in grids]  # its time is in SCORED_S

    def score(photos):
        device.run(SCORED_S[tokens] * len(photos))
        return [torch.zeros(len(photo.suffixes)) for photo in photos]

    scorer._encode_batch, scorer._score = encode, score
    apart = timed(lambda: [scorer.rank([query]) for query in queries])
    before = device.busy
    together = timed(lambda: scorer.rank(queries))
    tell(
        f"ranker, {tokens} tokens{', references cached' if cached else ''}",
        PHOTOS,
        device.busy - before,
        together,
        apart,
    )


def encoder(folder: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(REFERENCES, 1280)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    at = random.uniform(-60, 60, (REFERENCES, 2))
    rows = [
        {"id": n, "uri": f"r/{n}.jpg", "status": "indexed", "lat": at[n, 0], "lon": at[n, 1], "vector": vectors[n]}
        for n in range(REFERENCES)
    ]
    write_index(
        folder, IndexInfo("photos", "bench", "lite", "lite", REFERENCES, 1280), [pa.Table.from_pylist(rows, REFERENCE)]
    )
    locator = Locator.load(LocatorOptions(encoder_config("lite"), (Folder(str(folder)),)))
    device, size = Device(), 336
    device_answer = vectors[:256]

    def encode(self: ImageEncoder, pixels: np.ndarray) -> np.ndarray:
        torch.as_tensor(np.array(pixels))  # into pages that a device fetches
        device.run(ENCODED_S * len(pixels) / 256)
        return device_answer[: len(pixels)]

    ImageEncoder.encode = encode
    photos = pa.Table.from_pylist(
        [{"id": n, "uri": f"{n}.jpg", "pixels": bytes(size * size * 3)} for n in range(256)], LOADED
    )
    locator.retriever._encoder.view = type(locator.retriever._encoder.view)(size)
    batches = [photos] * 12
    apart = timed(lambda: [locator.locate(batch) for batch in batches])
    before = device.busy
    with ThreadPoolExecutor(2) as calls:  # as the actor is called
        together = timed(lambda: list(calls.map(locator.locate, batches)))
    tell("encoder and retrieval, 336 pixels", 256 * len(batches), device.busy - before, together, apart)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def tell(what: str, photos: int, busy: float, together: float, apart: float) -> None:
    print(
        f"{what}: {photos / together:.1f} photos/s, the device idle {100 * (1 - busy / together):.0f} % of the time; "
        f"one after the other {photos / apart:.1f}, {100 * (1 - busy / apart):.0f} % ({apart / together:.2f} times as long)"
    )


def main() -> None:
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as folder:
        base = write_qwen2_vl(Path(folder) / "base")
        for tokens in SCORED_S:
            for cached in (False, True):
                ranker(base, tokens, cached)
        encoder(Path(folder) / "index")


if __name__ == "__main__":
    main()
