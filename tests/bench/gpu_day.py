"""All that is to be measured on a GPU, in one go: 25 minutes on one card, without Ray.

    python -m tests.bench.gpu_day gpu_day.json            # a card
    python -m tests.bench.gpu_day /tmp/x.json --small     # a few minutes on a CPU, to see that it runs

First CUDA's answers are held against the CPU's, and nothing is measured where they differ. Models have the real shapes and random
weights. The ranker is asked as archives ask it: photos and candidates' pictures of many shapes, decoding and prompts included,
medians of several goes. Writes a JSON file, as far as it came, and prints rows for README's table.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import faiss
import numpy as np
import open_clip
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from geoloc.encoders.config import encoder_config
from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.location import LocationEncoder
from geoloc.index.search import ExactSearcher, GpuSearcher, exact_search
from geoloc.ranking import georanker
from geoloc.ranking.attention import OF_PACKS, OF_PICTURES, has_kernel
from geoloc.ranking.georanker import GeoRankerModel, load_base, with_new_adapter
from geoloc.ranking.losses import multi_order_distance_loss
from geoloc.ranking.options import PromptOptions
from geoloc.ranking.packing import Pack
from geoloc.ranking.prompt import PromptPlace
from geoloc.ranking.query import RankCandidate, RankQuery
from geoloc.ranking.scorer import GeoRankerScorer
from geoloc.toy.models import write_qwen2_vl
from tests.bench import bench_scorer
from tests.bench.bench_idle import jpeg

CANDIDATES, GOES, PHOTOS = 15, 3, 48
NEAR = 0.06
"""That scores in bfloat16 may be from those in float32, in the unit of their spread."""


class Day:
    def __init__(self, file: Path, small: bool) -> None:
        self._file, self.small = file, small
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        chip = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "faiss": faiss.__version__}
        self.found: dict = {"chip": chip, "versions": versions, "small": small}

    def note(self, name: str, **values: object) -> None:
        self.found[name] = values
        self._file.write_text(json.dumps(self.found, indent=1))
        told = ", ".join(
            f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
        )
        print(f"{name}: {told}", flush=True)

    def median(self, work: Callable[[], object]) -> float:
        """Seconds."""
        work()
        spent = []
        for _ in range(GOES):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            spent.append(time.perf_counter() - start)
        return statistics.median(spent)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def memory(self) -> float:
        """GB, at the peak."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    day = Day(arguments.file, arguments.small)
    with tempfile.TemporaryDirectory() as folder:
        same_answers(day, Path(folder))
        encoder(day, Path(folder))
        search(day)
        for size in ("small",) if day.small else ("2B", "7B"):
            ranker(day, size, Path(folder))
    rows(day.found)


def same_answers(day: Day, folder: Path) -> None:
    """Raises where they are not."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (8, 224, 224, 3), dtype=np.uint8)
    vectors = [ImageEncoder(encoder_config("lite"), device).encode(pixels) for device in ("cpu", day.device)]
    at = random.uniform(-80, 80, (2, 64))
    places = [LocationEncoder.geoclip().to(device).encode(*at) for device in ("cpu", day.device)]
    base = str(write_qwen2_vl(folder / "toy"))
    queries = asked(random, 20, 4, (56, 224))
    prompt = PromptOptions(min_pixels=56 * 56, max_pixels=168 * 168)
    exact = load_base(base).eval()
    expected = np.concatenate(GeoRankerScorer(exact, base, prompt).rank(queries))
    off = {}
    dtype = torch.bfloat16 if day.device == "cuda" else torch.float32
    for kernel in (True, False):
        with mock.patch.object(georanker, "has_kernel", return_value=kernel and has_kernel(f"{day.device}:0", dtype)):
            model = load_base(base, dtype, day.device).eval()
            model.value_head.load_state_dict(exact.value_head.state_dict())
            scores = np.concatenate(GeoRankerScorer(model, base, prompt, day.device).rank(queries))
        off["kernel" if kernel else "sdpa"] = float(np.abs(scores - expected).max() / expected.std())
    day.note(
        "answers",
        has_kernel=has_kernel(f"{day.device}:0", dtype),
        least_cosine=float((vectors[0] * vectors[1]).sum(axis=1).min()),
        least_cosine_of_places=float((places[0] * places[1]).sum(axis=1).min()),
        **{f"scores_off_by_{name}": value for name, value in off.items()},
    )
    assert day.found["answers"]["least_cosine"] > 0.99
    assert max(off.values()) < NEAR, "the ranker's scores are others than on the CPU"


def asked(random: np.random.Generator, photos: int, candidates: int, sides: tuple[int, int]) -> list[RankQuery]:
    """Photos and pictures of many shapes, some candidates again and again, as a city's references are."""

    def shape() -> tuple[int, int]:
        return tuple(int(side) // 28 * 28 for side in random.uniform(*sides, 2))

    count = 4 * candidates
    places = [PromptPlace(*random.uniform(-80, 80, 2).tolist(), f"City {n} Region Country") for n in range(count)]
    shown = [RankCandidate(place, jpeg(random, max(shape())), n) for n, place in enumerate(places)]
    return [
        RankQuery(
            random.integers(0, 255, (*shape(), 3), np.uint8),
            [shown[n] for n in random.choice(count, candidates, replace=False)],
            places[:5],
        )
        for _ in range(photos)
    ]


def encoder(day: Day, folder: Path) -> None:
    """ViT-L/14 at 336 pixels, from uint8 crops, copies and all."""
    if day.small:
        model, size, batch = ImageEncoder(encoder_config("lite"), day.device), 224, 16
    else:
        model, size, batch = ImageEncoder(encoder_config("lite", random_vit(folder)), day.device), 336, 256
    pixels = np.random.default_rng(0).integers(0, 255, (batch, size, size, 3), dtype=np.uint8)
    eager = batch / day.median(lambda: model.encode(pixels))
    compiled = None
    if day.device == "cuda":
        model._tower = torch.compile(model._tower)
        compiled = batch / day.median(lambda: model.encode(pixels))
    day.note("encoder", photos_per_s=eager, photos_per_s_compiled=compiled, batch=batch, memory_gb=day.memory())


def random_vit(folder: Path) -> str:
    name = "ViT-L-14-336-quickgelu"
    model = open_clip.create_model(name)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    preprocess = {"mean": list(open_clip.OPENAI_DATASET_MEAN), "std": list(open_clip.OPENAI_DATASET_STD)}
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def unit(random: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    vectors = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, 100_000):
        part = random.standard_normal((min(100_000, rows - start), dimension), np.float32)
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def search(day: Day) -> None:
    count, random = 20_000 if day.small else 4_100_000, np.random.default_rng(0)
    vectors, queries = unit(random, count, 768), unit(random, 256, 768)
    searcher = GpuSearcher(vectors, [0]) if day.device == "cuda" else ExactSearcher(vectors)
    _, rows = searcher.search(queries[:16], 20)
    _, expected = exact_search(vectors, queries[:16], 20)
    same = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(rows, expected, strict=True)])
    day.note(
        "search",
        rows=count,
        queries_per_s=256 / day.median(lambda: searcher.search(queries, 20)),
        same_top_20=float(same),
    )


def build(size: str, folder: Path, day: Day) -> GeoRankerModel:
    """Real shapes, random weights, and the toy's tokens."""
    settings, ids = bench_scorer.config(size), AutoProcessor.from_pretrained(folder).tokenizer
    for name, token in {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }.items():
        setattr(settings, name, ids.convert_tokens_to_ids(token))
    dtype = torch.bfloat16 if day.device == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(day.device):
        whole = AutoModelForImageTextToText.from_config(settings, dtype=dtype, attn_implementation="sdpa").eval()
    whole.model.language_model.config._attn_implementation = OF_PACKS
    if day.device == "cpu" or has_kernel(f"{day.device}:0", dtype):
        whole.model.visual.config._attn_implementation = OF_PICTURES
    return GeoRankerModel(whole.model).eval()


def ranker(day: Day, size: str, folder: Path) -> None:
    base = str(folder / "toy")
    model, random = build(size, folder / "toy", day), np.random.default_rng(0)
    photos = 4 if day.small else PHOTOS
    for tokens in (64, 256):
        side = 28 * round(tokens**0.5)
        queries = asked(random, photos, CANDIDATES, (side * 0.8, side * 1.25))
        for template in ("shared_prefix", "georanker"):
            prompt = PromptOptions(template, min_pixels=56 * 56, max_pixels=side * side)
            rates = {}
            for name, cache, kernel in (("", 0, True), ("_cached", 8 << 30, True), ("_cached_sdpa", 8 << 30, False)):
                has = kernel and has_kernel(f"{day.device}:0", model.model.dtype)
                with mock.patch.object(georanker, "has_kernel", return_value=has):
                    scorer = GeoRankerScorer(model, base, prompt, day.device, 4, cache_bytes=cache)
                    rates[f"photos_per_s{name}"] = photos / day.median(functools.partial(scorer.rank, queries))
            day.note(f"ranker {size} {tokens} {template}", **rates, memory_gb=day.memory())
    training(day, size, model, base)


def training(day: Day, size: str, model: GeoRankerModel, base: str) -> None:
    """A step of 4 photos with 7 candidates each: LoRA, multi-order distance loss, AdamW."""
    tuned = with_new_adapter(model).train()
    parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    scorer = GeoRankerScorer(
        model, base, PromptOptions(min_pixels=56 * 56, max_pixels=448 * 448), day.device, cache_bytes=0
    )
    queries = asked(np.random.default_rng(1), 4, 7, (300, 448))
    km = torch.rand(1, 7, device=day.device, dtype=torch.float64) * 1000

    def step() -> None:
        with torch.no_grad():
            asked_of = scorer.encode_queries(queries)
        for prompts in asked_of:
            scores = tuned(Pack.of([prompts], day.device))
            (multi_order_distance_loss(scores[None], km) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = day.median(step)
    day.note(f"training {size}", seconds_a_step=seconds, memory_gb=day.memory())


def rows(found: dict) -> None:
    print(f"\nFor README's table ({found['chip']}):")
    encoder, search = found["encoder"], found["search"]
    compiled = f", compiled {encoder['photos_per_s_compiled']:,.0f}" if encoder["photos_per_s_compiled"] else ""
    print(f"| `gpu_day`: ViT-L/14-336 | {encoder['photos_per_s']:,.0f} photos/s{compiled} |")
    print(f"| exact search, {search['rows']:,} x 768 | {search['queries_per_s']:,.0f} queries/s |")
    for name, values in found.items():
        if name.startswith("ranker "):
            told = ", ".join(
                f"{key.removeprefix('photos_per_s').strip('_') or 'nothing cached'} {value:.2f}"
                for key, value in values.items()
                if key.startswith("photos")
            )
            print(f"| {name}, 15 candidates | photos/s: {told} |")
        if name.startswith("training "):
            print(
                f"| {name}, 4 photos x 7 candidates | {values['seconds_a_step']:.2f} s a step, {values['memory_gb']:.0f} GB |"
            )


if __name__ == "__main__":
    main()
