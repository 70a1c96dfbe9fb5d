"""On a GPU: FAISS and torch in one process against the CPU's answers, exact search, and encoding.

    python -m tests.bench.bench_gpu

Needs `faiss-gpu`, `open_clip_torch` and a CUDA device; no weights, no Ray.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file

from geoloc.encoders.config import encoder_config
from geoloc.encoders.image import ImageEncoder
from geoloc.index.search import GpuSearcher, exact_search

ROWS = 4_100_000
VIT_L_336_FLOP = 382e9
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def main() -> None:
    chip = torch.cuda.get_device_name()
    print(f"{chip}, torch {torch.__version__} (CUDA {torch.version.cuda}), faiss {faiss.__version__}")
    agree()
    for dimension in (768, 2304):
        search(dimension)
    encode(chip)


def agree() -> None:
    """FAISS built for one CUDA and torch for another, in one process: the same answers as on the CPU."""
    random = np.random.default_rng(0)
    vectors, queries = unit(random, 200_000, 768), unit(random, 64, 768)
    torch.randn(1000, 1000, device="cuda").matmul(torch.randn(1000, 1000, device="cuda")).sum().item()
    scores, rows = GpuSearcher(vectors, [0]).search(queries, 20)
    exact_scores, exact_rows = exact_search(vectors, queries, 20)
    same = np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(rows, exact_rows, strict=True)])
    print(
        f"fp16 on GPU against fp32 on CPU: {100 * same:.2f} % of the top 20, scores within {np.abs(scores - exact_scores).max():.1e}"
    )


def search(dimension: int, queries: int = 4096) -> None:
    random = np.random.default_rng(0)
    searcher = GpuSearcher(unit(random, ROWS, dimension), [0])
    batch = unit(random, queries, dimension)
    seconds = fastest(lambda: searcher.search(batch, 20))
    print(f"exact search in {ROWS / 1e6:.1f} M x {dimension}: {queries / seconds:,.0f} queries/s")


def encode(chip: str, batch: int = 256) -> None:
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in chip), None)
    with tempfile.TemporaryDirectory() as folder:
        encoder = ImageEncoder(encoder_config("lite", random_vit(Path(folder))), "cuda")
    pixels = np.random.default_rng(0).integers(0, 255, (batch, 336, 336, 3), dtype=np.uint8)
    for name in ("eager", "compiled"):
        if name == "compiled":
            encoder._tower = torch.compile(encoder._tower)
            encoder.encode(pixels)
        rate = batch / fastest(lambda: encoder.encode(pixels))
        share = f", {100 * rate * VIT_L_336_FLOP / peak:.0f} % of the chip's peak" if peak else ""
        print(f"ViT-L/14-336 from uint8 crops, {name}: {rate:,.0f} photos/s{share}")


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


def fastest(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several goes, after one to warm up."""
    work()
    seconds = []
    for _ in range(times):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
