"""What decoding JPEGs at a smaller scale costs and saves, by the size of the photo: for the rule in use, and for others.

python -m tests.bench.bench_decode ../shared/data/photos [COUNT]

Real photos are brought to each size, where that is larger with a sensor's grain. Beside decoding whole: the cosine of the
embeddings, the photos whose nearest neighbour among all others changes, and photos a second, of one core.
"""

import io
import math
import sys
import time
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from geoloc.encoders.config import lite
from geoloc.encoders.image import ImageEncoder
from geoloc.photos.decode import MARGIN, PhotoFile
from geoloc.photos.views import Picture, View

VIEW = View(224)
SHORTEST = (300, 480, 640, 900, 1400, 2000, 3000)
GRAIN = 3.0


def main(folder: str, count: int = 240) -> None:
    paths = sorted(Path(folder).rglob("*.jpg"))
    encoder = ImageEncoder(lite(), threads=2)
    gallery = embeddings(encoder, [VIEW.of(PhotoFile(path.read_bytes()).picture(exact=True)) for path in paths])
    chosen = np.random.default_rng(0).permutation(len(paths))[:count]
    print(f"{count} photos of {len(paths):,}; with MARGIN {MARGIN}, and as before: the nearest scale, its own geometry")
    print(
        "| shortest side, px | decoded at | cosine, mean | worst | neighbours changed, % | photos/s | whole | times |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for shortest in SHORTEST:
        random = np.random.default_rng(shortest)
        files = [
            resized(paths[number], shortest, random) for number in chosen[: count if shortest < 2000 else count // 2]
        ]
        whole, whole_rate = timed(lambda data: VIEW.of(PhotoFile(data).picture(exact=True)), files)
        reference = embeddings(encoder, whole)
        for name, way in (("", in_use), (" (before)", nearest_scale)):
            views, rate = timed(way, files)
            scale = 100 * PhotoFile(files[0]).picture(wanted(files[0])).image.width / PhotoFile(files[0]).width
            at = f"{scale:.0f} %" if not name else "nearest"
            cosine, changed = compared(embeddings(encoder, views), reference, gallery, chosen[: len(files)])
            print(
                f"| {shortest:,}{name} | {at} | {cosine.mean():.4f} | {cosine.min():.4f} | {100 * changed:.1f} | {rate:.1f} | "
                f"{whole_rate:.1f} | {rate / whole_rate:.2f} |",
                flush=True,
            )


def wanted(data: bytes) -> float:
    photo = PhotoFile(data)
    return VIEW.scale(photo.width, photo.height)


def in_use(data: bytes) -> Image.Image:
    return VIEW.of(PhotoFile(data).picture(wanted(data)))


def nearest_scale(data: bytes) -> Image.Image:
    """The smallest of all eighths that is not below the view, taken for the whole photo."""
    photo = PhotoFile(data)
    scale = min(1.0, VIEW.scale(photo.width, photo.height))
    width, height = math.ceil(photo.width * scale), math.ceil(photo.height * scale)
    return VIEW.of(Picture.of(Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height))))


def resized(path: Path, shortest: int, random: np.random.Generator) -> bytes:
    image = Image.open(path).convert("RGB")
    factor = shortest / min(image.size)
    image = image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)
    if factor > 1:
        noise = random.normal(0, GRAIN, (image.height, image.width, 1))
        image = Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def timed(view_of, files: list[bytes]) -> tuple[list[Image.Image], float]:
    """Views, and photos a second."""
    start = time.perf_counter()
    views = [view_of(data) for data in files]
    return views, len(files) / (time.perf_counter() - start)


def embeddings(encoder: ImageEncoder, views: list[Image.Image]) -> np.ndarray:
    pixels = [np.asarray(view) for view in views]
    return np.concatenate([encoder.encode(np.stack(pixels[at : at + 64])) for at in range(0, len(pixels), 64)])


def compared(ours: np.ndarray, whole: np.ndarray, gallery: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, float]:
    """Cosines (n,), and the share of photos with another nearest neighbour in the gallery, themselves left out."""
    nearest = []
    for vectors in (ours, whole):
        similarity = vectors @ gallery.T
        similarity[np.arange(len(own)), own] = -1
        nearest.append(similarity.argmax(axis=1))
    return np.sum(ours * whole, axis=1), float((nearest[0] != nearest[1]).mean())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
