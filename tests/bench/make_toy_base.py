"""A small Qwen2-VL that sees: the base that LoRA is tried on where the real one is too big. Trained in full, on a CPU.

python -m tests.bench.make_toy_base FOLDER [--minutes 40]

It learns on toy planets of its own, whose cities and looks nobody else uses. First its vision tower: photos of one city are
to be near to each other. Then all of it: which of seven candidates is nearest, asked as GeoRanker asks.
"""

import argparse
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor

from geoloc.geo.distance import haversine_km
from geoloc.photos.views import Picture
from geoloc.ranking.attention import OF_PACKS
from geoloc.ranking.georanker import GeoRankerModel
from geoloc.ranking.losses import multi_order_distance_loss
from geoloc.ranking.packing import EncodedImage, Pack
from geoloc.ranking.pictures import Patcher
from geoloc.ranking.prompt import PromptPlace, messages
from geoloc.ranking.prompting import Prompter
from geoloc.toy.models import write_qwen2_vl
from geoloc.toy.planet import Planet

SEEDS, CITIES, PHOTOS = (101, 102, 103), 300, 10
MAX_PIXELS = 12 * 28 * 28
CANDIDATES, NEGATIVES = 7, 5
TEXT = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 8}
VISION = {"depth": 3, "embed_dim": 96, "num_heads": 3}


class World:
    """Planets' photos in memory."""

    def __init__(self, view) -> None:
        with Pool(2) as pool:
            painted = pool.starmap(_paint, [(seed, city, view) for seed in SEEDS for city in range(CITIES)])
        self.pictures = np.stack([pictures for pictures, _ in painted])
        """(cities, photos, h, w, 3) uint8."""
        self.at = np.stack([at for _, at in painted])
        """(cities, photos, 2)."""
        planets = [Planet(seed, CITIES, 37) for seed in SEEDS]
        self.names = [
            f"{city.name} {planet.country_names[city.country]}" for planet in planets for city in planet.cities
        ]


def _paint(seed: int, city: int, view) -> tuple[np.ndarray, np.ndarray]:
    planet = _planet(seed)
    pictures, at = [], []
    for number in range(PHOTOS):
        random = np.random.default_rng([seed, city, number])
        lat, lon = planet.place(city, random)
        pictures.append(view.of(Picture.of(planet.photo(city, lat, lon, random))))
        at.append((round(lat, 2), round(lon, 2)))
    return np.stack(pictures), np.array(at)


_PLANETS = {}


def _planet(seed: int) -> Planet:
    if seed not in _PLANETS:
        _PLANETS[seed] = Planet(seed, CITIES, 37)
    return _PLANETS[seed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    arguments = parser.parse_args()
    random, started = np.random.default_rng(0), time.monotonic()
    write_qwen2_vl(arguments.folder, text=TEXT, vision=VISION, prompts=_sample_prompts(random))
    whole = AutoModelForImageTextToText.from_pretrained(arguments.folder, attn_implementation="sdpa")
    whole.model.language_model.config._attn_implementation = OF_PACKS
    processor = AutoProcessor.from_pretrained(arguments.folder)
    patcher = Patcher.of(processor.image_processor)
    world = World(patcher.view(4 * 28 * 28, MAX_PIXELS))
    print(f"painted {world.pictures.shape} in {time.monotonic() - started:.0f} s", flush=True)
    ranker = GeoRankerModel(whole.model)
    learn_to_see(ranker, world, patcher, random, minutes=arguments.minutes / 4)
    learn_to_rank(
        ranker,
        world,
        Prompter(processor, whole.model, "shared_prefix"),
        patcher,
        random,
        started + 60 * arguments.minutes,
    )
    whole.save_pretrained(arguments.folder)


def _sample_prompts(random: np.random.Generator) -> list[str]:
    planet = Planet(SEEDS[0], CITIES, 37)
    names = [f"{city.name} {name}" for city in planet.cities for name in planet.country_names]
    places = [PromptPlace(*np.round(random.uniform(-60, 60, 2), 2).tolist(), random.choice(names)) for _ in range(600)]
    texts = [messages("shared_prefix", p, places[:NEGATIVES])[0]["content"] for p in places]
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nassistant\n"
    return [system] * 50 + [part["text"] for content in texts for part in content if part["type"] == "text"]


def encode_images(ranker: GeoRankerModel, pictures: list[np.ndarray], patcher: Patcher) -> list[EncodedImage]:
    grids = [patcher.grid(picture) for picture in pictures]
    patches = patcher.normalised([patcher.cut(picture) for picture in pictures], "cpu")
    return [EncodedImage(grid, one) for grid, one in zip(grids, ranker.encode_images(patches, grids), strict=True)]


def learn_to_see(
    ranker: GeoRankerModel, world: World, patcher: Patcher, random: np.random.Generator, minutes: float
) -> None:
    """InfoNCE over 64 cities, two photos each."""
    optimizer = torch.optim.AdamW(ranker.model.visual.parameters(), lr=1e-3, weight_decay=0.01)
    started, step, right = time.monotonic(), 0, []
    while (spent := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * (1 - spent)
        planet = int(random.integers(len(SEEDS)))
        cities = planet * CITIES + random.choice(CITIES, 64, replace=False)
        pairs = [random.choice(PHOTOS, 2, replace=False) for _ in cities]
        pictures = [world.pictures[c, p[side]] for side in (0, 1) for c, p in zip(cities, pairs, strict=True)]
        vectors = functional.normalize(
            torch.stack([seen.features.mean(0) for seen in encode_images(ranker, pictures, patcher)]), dim=1
        )
        logits = vectors[:64] @ vectors[64:].T / 0.07
        target = torch.arange(64)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append((logits.argmax(1) == target).float().mean().item())
        step += 1
        if step % 50 == 0:
            print(f"seeing: step {step}, the same city of 64 found {np.mean(right[-50:]):.3f}", flush=True)


def learn_to_rank(
    ranker: GeoRankerModel,
    world: World,
    prompter: Prompter,
    patcher: Patcher,
    random: np.random.Generator,
    until: float,
) -> None:
    """Four queries a step; the candidates are other cities' photos, in most cases one of the right city too."""
    rest = [p for name, p in ranker.named_parameters() if "visual" not in name]
    groups = [{"params": rest, "rate": 1e-3}, {"params": list(ranker.model.visual.parameters()), "rate": 3e-4}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    started, step, right, losses = time.monotonic(), 0, [], []
    while (spent := (time.monotonic() - started) / (until - started)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * min(1, (step + 1) / 200) * (1 - spent)
        optimizer.zero_grad()
        for _ in range(4):
            loss, hit = _rank_one(ranker, world, prompter, patcher, random)
            (loss / 4).backward()
            right.append(hit)
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(ranker.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(
                f"ranking: step {step}, loss {np.mean(losses[-200:]):.3f}, nearest of 7 first {np.mean(right[-400:]):.3f}",
                flush=True,
            )


def _rank_one(ranker, world, prompter, patcher, random) -> tuple[torch.Tensor, bool]:
    planet = int(random.integers(len(SEEDS)))
    city = planet * CITIES + int(random.integers(CITIES))
    photos = random.choice(PHOTOS, 2, replace=False)
    others = planet * CITIES + random.choice(CITIES, CANDIDATES + NEGATIVES, replace=False)
    others = [(int(c), int(random.integers(PHOTOS))) for c in others if c != city]
    shown = others[:CANDIDATES]
    if random.uniform() < 0.85:
        shown[int(random.integers(CANDIDATES))] = (city, int(photos[1]))
    lat, lon = world.at[city, photos[0]]
    places = [PromptPlace(*world.at[c, p].tolist(), world.names[c]) for c, p in shown]
    negatives = [PromptPlace(*world.at[c, p].tolist(), world.names[c]) for c, p in others[CANDIDATES:][:NEGATIVES]]
    pictures = [world.pictures[city, photos[0]], *(world.pictures[c, p] for c, p in shown)]
    query, *seen = encode_images(ranker, pictures, patcher)
    prompts = prompter.prompts(query, list(zip(places, seen, strict=True)), negatives)
    scores = ranker(Pack.of([prompts], "cpu"))
    km = torch.tensor(haversine_km(lat, lon, *np.array([(p.lat, p.lon) for p in places]).T))
    return multi_order_distance_loss(scores[None], km[None]), bool(scores.argmax() == km.argmin())


if __name__ == "__main__":
    main()
