"""What scoring a photo's 15 candidates costs: operations of a 7B model, and photos/s against each pair by itself.

    python -m tests.bench.bench_scorer            # operations counted, and a small model timed on the CPU
    python -m tests.bench.bench_scorer 2B 7B      # the real architectures with random weights, timed on a GPU

The baseline on a GPU is the released code's way: one padded batch of pairs, and the logits of the whole vocabulary. Needs no
weights, no tokenizer and no Ray.
"""

import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, Qwen2VLConfig

from geoloc.ranking import attention, georanker
from geoloc.ranking.attention import OF_PACKS, OF_PICTURES, Group, has_kernel
from geoloc.ranking.georanker import GeoRankerModel, with_new_adapter
from geoloc.ranking.losses import multi_order_distance_loss
from geoloc.ranking.packing import EncodedImage, Pack, Part, Prompts

CANDIDATES, TRAINED = 15, 7
SYSTEM, QUESTION, NEGATIVES, CLOSING = 25, 45, 165, 8
"""Tokens of a prompt's parts; an image has two more, before and behind it."""
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
SIZES = {
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8},
    "2B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
KEY_HEADS = {"small": 2, "2B": 2, "7B": 4}
VOCABULARY = {"small": 2_000, "2B": 151_936, "7B": 152_064}
SMALL_VISION = {"depth": 4, "embed_dim": 160, "num_heads": 4}
IMAGE, VIDEO, START, END = 5, 6, 7, 8


def config(size: str) -> Qwen2VLConfig:
    text = SIZES[size] | {"num_key_value_heads": KEY_HEADS[size], "vocab_size": VOCABULARY[size]}
    text |= {"max_position_embeddings": 32_768}
    head = text["hidden_size"] // text["num_attention_heads"]
    sections = [head // 8, head * 3 // 16, head // 2 - head // 8 - head * 3 // 16]
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    vision = (SMALL_VISION if size == "small" else {}) | {"hidden_size": text["hidden_size"]}
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START, "vision_end_token_id": END}
    return Qwen2VLConfig(text_config=text, vision_config=vision, **ids)


def build(size: str, device: str, dtype: torch.dtype):
    torch.manual_seed(0)
    with torch.device(device):
        whole = AutoModelForImageTextToText.from_config(config(size), dtype=dtype, attn_implementation="sdpa").eval()
    whole.model.language_model.config._attn_implementation = OF_PACKS
    if device == "cpu" or has_kernel(device, dtype):
        whole.model.visual.config._attn_implementation = OF_PICTURES
    with mock.patch.object(
        georanker, "_identity", return_value=""
    ):  # on shapes alone there are no tensors to tell it by
        return whole, GeoRankerModel(whole.model).eval()


def grid(tokens: int) -> tuple[int, int]:
    side = round(tokens**0.5)
    assert side * side == tokens
    return 2 * side, 2 * side


def part(words: list[int], image: EncodedImage | None) -> Part:
    """``words``: how many tokens of text; 0 is the place of the image."""
    shown = [START, *[IMAGE] * len(image.features), END] if image else []
    ids = np.array([token for count in words for token in (shown if count == 0 else [20] * count)])
    at = int(np.flatnonzero(ids == IMAGE)[0]) if image else 0
    return Part(ids, np.broadcast_to(np.arange(len(ids)), (3, len(ids))), image, at)


def prompts(template: str, query: EncodedImage, candidates: list[EncodedImage]) -> Prompts:
    if template == "georanker":
        prefix, suffix = [SYSTEM, 0], [QUESTION, 0, NEGATIVES, CLOSING]
    else:
        prefix, suffix = [SYSTEM, NEGATIVES, 0], [QUESTION, 0, CLOSING]
    return Prompts(part(prefix, query), [part(suffix, image) for image in candidates])


def patches(tokens: int, images: int, device: str, dtype: torch.dtype) -> tuple[torch.Tensor, list]:
    return torch.randn(images * tokens * 4, 3 * 2 * 14 * 14, device=device, dtype=dtype), [grid(tokens)] * images


def count() -> None:
    """Operations of a 7B model: its language model's counted on shapes alone, its vision tower's from one and two blocks."""
    _, ranker = build("7B", "meta", torch.bfloat16)
    print("TFLOP a photo with 15 candidates, 7B, counted (image tokens of query and candidates):\n")
    print(
        "| image tokens | pairs alone, all logits | template georanker | + cached references | shared_prefix | + cached references |"
    )
    print("|---|---|---|---|---|---|")
    for tokens in (256, 64):
        look = vision_flops(tokens)
        image = EncodedImage(grid(tokens), torch.empty(tokens, 3584, device="meta", dtype=torch.bfloat16))
        language = {}
        for template in ("georanker", "shared_prefix"):
            asked = prompts(template, image, [image] * CANDIDATES)
            language[template] = flops(lambda asked=asked: ranker(on(Pack.of([asked], "cpu"), "meta")), "meta")
        pair = prompts("georanker", image, [image])
        alone = flops(lambda pair=pair: ranker(on(Pack.of([pair], "cpu"), "meta")), "meta")
        logits = 2 * pair.tokens * 3584 * VOCABULARY["7B"]
        cells = [CANDIDATES * (alone + logits + 2 * look)]
        for template in language:
            cells += [language[template] + (1 + CANDIDATES) * look, language[template] + look]
        print(f"| {tokens} | " + " | ".join(f"{cell / 1e12:.0f}" for cell in cells) + " |")


def on(pack: Pack, device: str) -> Pack:
    tensors = (pack.ids, pack.positions, pack.images, pack.image_tokens, pack.last)
    groups = [Group(g.start, g.prefix, g.padded.to(device), g.unpadded.to(device)) for g in pack.layout]
    return Pack(*(tensor.to(device) for tensor in tensors), groups)


def flops(work: Callable[[], object], device: str) -> int:
    """With the mask of attention spelled out, because the counter does not know the kind that needs no mask."""

    def spelled_out(queries: int, keys: int) -> torch.Tensor:
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)

    counter = FlopCounterMode(display=False)
    with mock.patch.object(attention, "causal_lower_right", spelled_out), counter, torch.no_grad():
        work()
    return counter.get_total_flops()


class _Launches(TorchDispatchMode):
    """Counts what a device would be sent: no views, and nothing that only makes room."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and "empty" not in str(func)
        return func(*args, **(kwargs or {}))


def launches() -> None:
    """Of one layer, by the difference of two models: of the language model, and of the vision tower."""

    def no_kernel(query, key, value, queries, keys, causal=False, scale=None):
        counter.count += 1  # it is one launch
        return torch.empty_like(query), torch.empty(query.shape[1], len(query))

    def no_launch(queries: int, keys: int) -> torch.Tensor:
        with _disable_current_modes():
            return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    print("\nLaunches a layer, 15 candidates a photo, 64 tokens an image:\n")
    print(
        "| photos in a pack | language, SDPA part by part | language, the kernel | vision, picture by picture | vision, all at once |"
    )
    print("|---|---|---|---|---|")
    for photos in (1, 4, 16):
        counted = []
        for kernel, pictures in ((False, "sdpa"), (True, OF_PICTURES)):
            language, vision = [], []
            for depth in (1, 2):
                settings = config("small")
                settings.text_config.num_hidden_layers = settings.vision_config.depth = depth
                settings.text_config.layer_types = ["full_attention"] * depth
                whole = AutoModelForImageTextToText.from_config(settings, attn_implementation="sdpa")
                whole.model.language_model.config._attn_implementation = OF_PACKS
                whole.model.visual.config._attn_implementation = pictures
                ranker = GeoRankerModel(whole.model).eval()
                values = patches(64, 16 * photos, "cpu", torch.float32)
                patched = mock.patch.multiple(attention, varlen=no_kernel, causal_lower_right=no_launch)
                with torch.no_grad(), patched, _Launches() as counter:
                    features = ranker.encode_images(*values)
                    vision.append(counter.count)
                    images = [EncodedImage(grid(64), one) for one in features]
                    asked = [
                        prompts("shared_prefix", images[16 * n], images[16 * n + 1 : 16 * n + 16])
                        for n in range(photos)
                    ]
                    pack = Pack.of(asked, "cpu", kernel)
                    counter.count = 0
                    ranker(pack)
                    language.append(counter.count)
            counted += [language[1] - language[0], vision[1] - vision[0]]
        print(f"| {photos} | {counted[0]} | {counted[2]} | {counted[1]} | {counted[3]} |")


def vision_flops(tokens: int) -> int:
    counted = []
    for depth in (1, 2):
        settings = config("7B")
        settings.vision_config.depth, settings.text_config.num_hidden_layers = depth, 0
        settings.text_config.layer_types, settings.text_config.vocab_size = [], 100
        ranker = GeoRankerModel(AutoModelForImageTextToText.from_config(settings, attn_implementation="sdpa").model)
        counted.append(
            flops(lambda ranker=ranker: ranker.encode_images(*patches(tokens, 1, "cpu", torch.float32)), "cpu")
        )
    return counted[0] + (config("7B").vision_config.depth - 1) * (counted[1] - counted[0])


def on_cpu() -> None:
    torch.set_num_threads(2)
    _, ranker = build("small", "cpu", torch.float32)
    print(
        "\nPhotos/s on 2 CPU threads, a small model, 15 candidates, in the ratio to each pair alone without logits:\n"
    )
    for tokens in (64, 16):
        for template in ("georanker", "shared_prefix"):
            alone = timed(lambda t=tokens, n=template: [pack_of(ranker, n, t, 1, "cpu") for _ in range(CANDIDATES)])
            shared = timed(lambda t=tokens, n=template: pack_of(ranker, n, t, CANDIDATES, "cpu"))
            kept = timed(lambda t=tokens, n=template: pack_of(ranker, n, t, CANDIDATES, "cpu", cached=True))
            print(
                f"{tokens} tokens an image, {template}: {1 / shared:.2f} photos/s, {alone / shared:.1f} times; "
                f"with cached references {1 / kept:.2f}, {alone / kept:.1f} times"
            )


@torch.no_grad()
def pack_of(ranker: GeoRankerModel, template: str, tokens: int, candidates: int, device: str, cached: bool = False):
    """Score so many candidates, pictures and all."""
    dtype = ranker.model.dtype
    if cached:
        [query] = encoded(ranker, tokens, 1, device, dtype)
        images = [EncodedImage(query.grid, torch.empty_like(query.features).normal_())] * candidates
    else:
        query, *images = encoded(ranker, tokens, 1 + candidates, device, dtype)
    return ranker(Pack.of([prompts(template, query, images)], device, ranker.kernel))


def encoded(ranker: GeoRankerModel, tokens: int, images: int, device: str, dtype: torch.dtype) -> list[EncodedImage]:
    values, grids = patches(tokens, images, device, dtype)
    return [EncodedImage(grid, one) for grid, one in zip(grids, ranker.encode_images(values, grids), strict=True)]


def in_full(size: str) -> None:
    """Against the released way, and a training step: on a GPU, or, to see that it runs, on a CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chip = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in chip), None)
    whole, ranker = build(size, device, torch.bfloat16 if device == "cuda" else torch.float32)
    print(f"\n{chip}, torch {torch.__version__}, {size}, 15 candidates, {whole.dtype}")
    for tokens in (256, 64):
        released = timed(lambda t=tokens: released_way(whole, ranker, t))
        print(f"{tokens} tokens an image, released way (padded pairs, all logits): {1 / released:.2f} photos/s")
        for template in ("georanker", "shared_prefix"):
            for cached in (False, True):
                work = lambda t=tokens, n=template, c=cached: pack_of(ranker, n, t, CANDIDATES, device, c)  # noqa: E731
                seconds, operations = timed(work), flops(work, device)
                share = f", {100 * operations / seconds / peak:.0f} % of peak" if peak else ""
                print(
                    f"{tokens} tokens an image, {template}{', cached references' if cached else ''}: "
                    f"{1 / seconds:.2f} photos/s, {released / seconds:.1f} times, "
                    f"{operations / seconds / 1e12:.2f} TFLOP/s{share}"
                )
    train(ranker, size, device)


@torch.no_grad()
def released_way(whole, ranker: GeoRankerModel, tokens: int) -> torch.Tensor:
    device, dtype = whole.device, whole.dtype
    values, grids = patches(tokens, 2 * CANDIDATES, device, dtype)
    image = EncodedImage(grid(tokens), torch.empty(tokens, 1))
    asked = prompts("georanker", image, [image])
    ids = torch.from_numpy(np.concatenate([asked.prefix.ids, asked.suffixes[0].ids])).repeat(CANDIDATES, 1).to(device)
    thw = torch.tensor([(1, *one) for one in grids], device=device)
    out = whole(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == IMAGE).int(),
        pixel_values=values,
        image_grid_thw=thw,
        output_hidden_states=True,
        use_cache=False,
    )
    return ranker.value_head(out.hidden_states[-1])[:, -1]


def train(ranker: GeoRankerModel, size: str, device: str) -> None:
    """A step of 4 photos with 7 candidates each: LoRA, multi-order distance loss, AdamW."""
    tuned = with_new_adapter(ranker).train()
    parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    km = torch.rand(1, TRAINED, device=device, dtype=torch.float64) * 1000

    def step() -> None:
        for _ in range(4):
            with torch.no_grad():
                query, *images = encoded(ranker, 256, 1 + TRAINED, device, ranker.model.dtype)
            scores = tuned(Pack.of([prompts("shared_prefix", query, images)], device))
            (multi_order_distance_loss(scores[None], km) / 4).backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = timed(step)
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.0f} GB at the peak" if device == "cuda" else ""
    print(f"training {size}, 4 photos x {TRAINED} candidates, 256 tokens: {seconds:.2f} s a step{memory}")


def timed(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several goes, after one to warm up."""
    work()
    seconds = []
    for _ in range(times):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    for size in sys.argv[1:]:
        in_full(size)
    if not sys.argv[1:]:
        count()
        launches()
        on_cpu()
