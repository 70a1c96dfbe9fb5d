"""12-megapixel JPEGs to the encoder's view: decoded whole by Pillow, whole by our decoder, and at the scale needed.

python -m tests.bench.bench_decode ../shared/data/photos
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from geoloc.encoders.image import ImageEncoder
from geoloc.encoders.presets import lite
from geoloc.photos.decode import PhotoFile
from geoloc.photos.views import View

VIEW = View(224)
COUNT = 40


def main(photos: str) -> None:
    files = [enlarged(path) for path in sorted(Path(photos).rglob("*.jpg"))[:: 1300 // COUNT][:COUNT]]
    print(f"{len(files)} JPEGs of 4000 x 3000, {np.mean([len(f) for f in files]) / 1e6:.1f} MB on average, one core")
    pillow = rate(files, lambda data: VIEW.of(Image.open(io.BytesIO(data)).convert("RGB")))
    whole = rate(files, lambda data: VIEW.of(PhotoFile(data).pixels(1.0)))
    scaled = rate(files, lambda data: VIEW.of(PhotoFile(data).pixels(VIEW.scale(4000, 3000))))
    print(f"Pillow, whole {pillow:.1f}/s; ours, whole {whole:.1f}/s; ours, scaled {scaled:.1f}/s")
    print(f"scaled : whole = {scaled / whole:.1f}, scaled : Pillow whole = {scaled / pillow:.1f}")
    encoder = ImageEncoder(lite())
    views = [[np.asarray(VIEW.of(PhotoFile(f).pixels(s))) for f in files] for s in (1.0, VIEW.scale(4000, 3000))]
    cosine = np.sum(encoder.encode(np.stack(views[0])) * encoder.encode(np.stack(views[1])), axis=1)
    print(f"cosine of the embeddings: mean {cosine.mean():.4f}, least {cosine.min():.4f}")


def enlarged(path: Path) -> bytes:
    """A real photo at 12 megapixels, with the grain that a sensor adds and enlarging lacks."""
    pixels = np.asarray(Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(0).normal(0, 3, (3000, 4000, 1))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def rate(files: list[bytes], decode: Callable[[bytes], Image.Image]) -> float:
    start = time.perf_counter()
    for data in files:
        decode(data)
    return len(files) / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1])
