"""Candidates from a model: what they are worth beside retrieved ones, and what the engines cost against bare loops.

python -m tests.bench.bench_generation [worth] [endpoint] [transformers] [kills]

worth: photos of a toy planet, and an oracle with noise in the model's place. It recognises some of the places, always the same, and
leans on the references that it is told of for others. All is chosen among the same retrieved candidates and the same replies.
endpoint: 64 requests in flight at a server that takes 0.3 s for each, against an asyncio client that does nothing else.
transformers: a little Qwen2-VL, against a loop over generate.
kills: the archive job, killed twice (SIGKILL), at an endpoint of which one call in five fails: what was delivered and paid for.
"""

import asyncio
import base64
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import numpy as np
import pyarrow as pa
import ray
import torch
from aiohttp import web
from PIL import Image

from geoloc.candidates.endpoint import Endpoint
from geoloc.candidates.engine import Completion, Request
from geoloc.candidates.huggingface import Transformers
from geoloc.candidates.options import EngineOptions, Generation, Sampling
from geoloc.candidates.prompts import prompt
from geoloc.encoders.config import encoder_config
from geoloc.estimate.confidence import Confidence
from geoloc.estimate.generator import Generator
from geoloc.estimate.locator import Locator
from geoloc.estimate.options import LocatorOptions
from geoloc.geo.distance import geodesic_km
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import LoadOptions, PhotoLoader
from geoloc.ranking.choosers import Density, Generated, Top1, Verification
from geoloc.results.parts import Parts
from geoloc.schema import MANIFEST
from geoloc.storage import Folder
from geoloc.toy.archive import write_archive, write_references
from geoloc.toy.models import write_qwen2_vl
from geoloc.toy.planet import Planet
from tests.candidates.servers import Response, error, replied
from tests.candidates.servers import endpoint as faulty

THRESHOLDS_KM = (25, 200, 750)
REFERENCES, QUERIES, ROUNDS = 1200, 400, 3
REQUESTS, IN_FLIGHT, TAKES_S = 600, 64, 0.3
KILLED_PHOTOS = 120
G3_PROMPTS = ("references-5", "references-10", "references-15", "zero-shot")


@dataclass
class Oracle:
    """A model that recognises some photos, and not others, whatever it is asked: where it does, most replies are within ``error_km`` of
    the place. Where it does not, it takes the place of one of the references that it is told of, in ``heeds`` of the replies,
    or else sticks to one guess, a city of the planet."""

    planet: Planet
    truth: dict[str, tuple[float, float]]
    recognises: float = 0.45
    steady: float = 0.8
    heeds: float = 0.5
    error_km: float = 10.0

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for number, request in enumerate(requests):
            photo = int(Path(request.photo).stem)
            draw = np.random.default_rng([photo, *request.prompt.encode()])
            replies = tuple(self._say(request, np.random.default_rng(photo), draw) for _ in range(request.samples))
            yield number, Completion(replies, 300, 20 * request.samples, 1)

    def _say(self, request: Request, of_photo: np.random.Generator, draw: np.random.Generator) -> str:
        recognised, guess = of_photo.random() < self.recognises, int(of_photo.integers(len(self.planet.cities)))
        north, east = of_photo.normal(0, self.error_km / 111, 2)  # it names one place, in most replies
        told = request.text.partition("similar images: ")[2].partition(", and these")[0]
        points = json.loads(told.replace("'", "")) if told else []
        if recognised and draw.random() < self.steady:
            lat, lon = self.truth[request.photo]
            lat, lon = np.clip(lat + north, -89, 89), (lon + east / np.cos(np.radians(lat)) + 180) % 360 - 180
        elif points and draw.random() < self.heeds:
            lat, lon = points[int(draw.integers(len(points)))]
        else:
            lat, lon = self.planet.cities[guess].lat, self.planet.cities[guess].lon
        return json.dumps({"latitude": round(float(lat), 4), "longitude": round(float(lon), 4)})


def worth() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, planet = Path(folder), Planet(cities=120, countries=24)
        write_references(root / "references", planet, REFERENCES)
        job(
            "train_alignment.py",
            root / "references",
            root / "alignment",
            "--encoder",
            "lite",
            "--epochs",
            "20",
            "--lr",
            "1e-4",
        )
        job("build_index.py", root / "references", root / "index", "--encoder", root / "alignment")
        truth = write_queries(root / "queries", planet)
        config = encoder_config(str(root / "alignment"))
        options = LocatorOptions(config, (Folder(str(root / "index")),), 20, asked=True, dissimilar=15)
        locator = Locator.load(options, threads=2)
        loader = PhotoLoader(LoadOptions(DecodeOptions(locator.retriever.view, thumbnail_px=512)))
        photos = pa.Table.from_pylist([{"id": n, "uri": uri} for n, uri in enumerate(truth)], MANIFEST)
        located = pa.concat_tables([locator.locate(batch) for batch in loader.load(photos)])
        oracle, at = Oracle(planet, truth), np.array(list(truth.values()))
        plain = Generation(G3_PROMPTS, 5, engine=EngineOptions(model="oracle", endpoint="http://oracle/v1"))

        def accuracy(chooser, generation: Generation | None) -> str:
            table = located
            if generation:
                score, scale = chooser.load(config, "cpu"), Confidence(chooser.scale(config))
                table = Generator(chooser.name, score, oracle, generation, scale).generate(located)
            km = geodesic_km(table["lat"].to_numpy(), table["lon"].to_numpy(), *at.T)
            return " ".join(f"| {100 * np.mean(km < threshold):.1f} " for threshold in THRESHOLDS_KM)

        print(f"| {QUERIES} photos, share below | " + " | ".join(f"{t} km" for t in THRESHOLDS_KM) + " |", flush=True)
        print(f"| retrieved alone, most similar {accuracy(Top1(), None)}|")
        print(f"| generated alone, most votes {accuracy(Generated(), plain)}|")
        print(f"| both, densest {accuracy(Density(100.0), plain)}|")
        print(f"| both, verification of all {accuracy(Verification(), plain)}|")
        print(f"| G3: verification of generated and the first retrieved {accuracy(Verification(retrieved=1), plain)}|")
        for count in range(1, 5):
            some = replace(plain, prompts=G3_PROMPTS[:count])
            print(f"| G3 with {count} prompts {accuracy(Verification(retrieved=1), some)}|", flush=True)
        for count in (1, 2, 3, 5, 8, 12):
            some = replace(plain, candidates=count)
            print(f"| G3 with {count} candidates a prompt {accuracy(Verification(retrieved=1), some)}|", flush=True)


def write_queries(folder: Path, planet: Planet) -> dict[str, tuple[float, float]]:
    folder.mkdir()
    truth = {}
    for number in range(QUERIES):
        random = np.random.default_rng([99, number])
        city = int(random.integers(len(planet.cities)))
        lat, lon = planet.place(city, random)
        path = folder / f"{number:05d}.jpg"
        planet.photo(city, lat, lon, random).save(path, quality=88)
        truth[str(path)] = lat, lon
    return truth


def job(name: str, *arguments: object) -> None:
    subprocess.run([sys.executable, f"jobs/{name}", *map(str, arguments)], check=True, capture_output=True)


def endpoint() -> None:
    server = subprocess.Popen([sys.executable, "-m", __spec__.name, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        asked = requests(REQUESTS, 1)
        engine = Endpoint(EngineOptions(model="m", endpoint=url, concurrency=IN_FLIGHT), Sampling())
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(rate(lambda: asyncio.run(bare_client(url, asked)), len(asked)))
            ours.append(rate(lambda: list(engine.complete(asked)), len(asked)))
        report("endpoint", bare, ours, "requests/s")
    finally:
        server.kill()


async def bare_client(url: str, asked: Sequence[Request]) -> None:
    places = asyncio.Semaphore(IN_FLIGHT)
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(request: Request) -> None:
            picture = f"data:image/jpeg;base64,{base64.b64encode(request.image).decode()}"
            content = [{"type": "text", "text": request.text}, {"type": "image_url", "image_url": {"url": picture}}]
            body = {"model": "m", "messages": [{"role": "user", "content": content}], "n": 1}
            async with places, session.post(f"{url}/chat/completions", json=body) as response:
                assert (await response.json())["choices"]

        await asyncio.gather(*(one(request) for request in asked))


def serve() -> None:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(TAKES_S)
        message = {"content": '{"latitude": 1.5, "longitude": 2.5}'}
        return web.json_response(
            {"choices": [{"message": message}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        )

    async def run() -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(site._server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


def transformers() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = str(write_qwen2_vl(Path(folder)))
        options = EngineOptions("transformers", model=base, batch_size=8)
        engine = Transformers.load(options, Sampling(temperature=1.0, max_tokens=32), threads=2)
        asked = requests(64, 2)
        model, processor = engine._model, engine._processor

        @torch.inference_mode()
        def loop() -> None:
            for start in range(0, len(asked), 8):
                some = asked[start : start + 8]
                chats = [
                    [{"role": "user", "content": [{"type": "text", "text": r.text}, {"type": "image"}]}] for r in some
                ]
                prompts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
                pictures = [[Image.open(io.BytesIO(r.image))] for r in some]
                inputs = processor(text=prompts, images=pictures, return_tensors="pt", padding=True)
                drawn = {"do_sample": True, "temperature": 1.0, "num_return_sequences": 2, "max_new_tokens": 32}
                processor.batch_decode(model.generate(**inputs, **drawn, pad_token_id=engine._pad))

        bare, ours = [], []
        for _ in range(ROUNDS):
            bare.append(rate(loop, len(asked)))
            ours.append(rate(lambda: list(engine.complete(asked)), len(asked)))
        report("transformers", bare, ours, "photos/s")


def kills() -> None:
    with tempfile.TemporaryDirectory() as folder, ray.init("local", num_cpus=2, log_to_driver=False) as cluster:
        root, planet = Path(folder), Planet(cities=12, countries=4)
        write_references(root / "references", planet, 60)
        write_archive(root / "archive", root / "truth.csv", planet, KILLED_PHOTOS)
        os.environ["RAY_ADDRESS"] = cluster.address_info["address"]
        job("build_index.py", root / "references", root / "index", "--encoder", "lite")

        def script(body: dict, number: int) -> Response:
            answer = error(503, "busy") if number % 5 == 4 else replied(body)
            return replace(answer, delay_s=0.3)

        with faulty(script) as server:
            arguments = [root / "archive", root / "out", "--recipe", "img2loc", "--encoder", "lite", "--batch-size", 16]
            arguments += ["--index", root / "index", "--generator-model", "m", "--generator-endpoint", server.url]
            arguments += ["--generator-concurrency", IN_FLIGHT // 8]
            for limit in (KILLED_PHOTOS // 3, 2 * KILLED_PHOTOS // 3):
                running = subprocess.Popen(
                    [sys.executable, "jobs/geotag_archive.py", *map(str, arguments)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                while len(server.paid) < limit:
                    assert running.poll() is None
                    time.sleep(0.05)
                running.kill()
                running.wait()
                print(f"killed with {len(server.paid)} replies delivered", flush=True)
            job("geotag_archive.py", *arguments)
        table = pa.concat_tables(Parts(Folder(str(root / "out" / "geotags"))).tables())
        rows = table.select(["id", "status", "method", "generation"]).to_pylist()
        located = [row for row in rows if row["status"] == "located"]
        deliveries = Counter(messages for messages, _ in server.paid)
        print(f"{len(rows)} rows of {KILLED_PHOTOS} photos, {len({row['id'] for row in rows})} distinct ids")
        print(f"by method: {dict(Counter(row['method'] for row in located))}")
        print(f"calls {len(server.asked)}, of which {len(server.asked) - len(server.paid)} failed")
        again = sum(count - 1 for count in deliveries.values()) - 2  # each start asks about the same grey picture
        print(f"replies delivered for {len(deliveries) - 1} photos: {len(server.paid) - 3}, of which twice: {again}")
        print(f"reported: {sum(row['generation']['prompt_tokens'] for row in located) // 300} requests' tokens")


def requests(count: int, samples: int) -> list[Request]:
    found = []
    for number in range(count):
        random = np.random.default_rng(number)
        picture = Image.fromarray(random.integers(0, 255, (24, 32, 3), np.uint8)).resize((512, 384))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=75)
        found.append(Request(f"{number}.jpg", "zero-shot", prompt("zero-shot").write(), buffer.getvalue(), samples))
    return found


def rate(run: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def report(name: str, bare: list[float], ours: list[float], unit: str) -> None:
    one, other = statistics.median(bare), statistics.median(ours)
    print(f"{name}: bare {one:.1f} {unit}, ours {other:.1f}: {other / one:.2f}", flush=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["worth", "endpoint", "transformers", "kills"]:
        {"worth": worth, "endpoint": endpoint, "transformers": transformers, "kills": kills, "serve": serve}[wanted]()
