"""Photos that take long wait for each other, and nobody waits for them."""

import asyncio
import os

import psutil

from geoloc.photos.examine import DecodeOptions
from geoloc.serving.decoding import Decoders
from tests.photos.test_decoder import HostileView, png


def test_a_photo_that_computes_for_ever_is_overtaken_and_given_up():
    order = []

    async def ask(decoders: Decoders, who: str, width: int) -> str | None:
        loaded = await decoders.load(png(width), who)
        order.append(who)
        return loaded["error_kind"][0].as_py()

    async def main() -> list:
        decoders = Decoders(DecodeOptions(HostileView(16), max_seconds=1.5), each=1)
        decoders.start()
        asked = [("mob", 14)] * 2 + [("ann", 20)] * 4 + [("bob", 13)]
        return await asyncio.gather(*(ask(decoders, *one) for one in asked))

    kinds = asyncio.run(main())
    assert kinds == ["too_slow", "too_slow", None, None, None, None, "crashed"]
    assert order[-1] == "mob"
    assert sorted(order[:5]) in (["ann"] * 4 + ["bob"], ["ann"] * 4 + ["mob"])


def test_who_leaves_frees_the_decoder():
    async def main() -> None:
        decoders = Decoders(DecodeOptions(HostileView(16), max_seconds=60), each=1)
        waiting = asyncio.create_task(decoders.load(png(15), "ann"))
        await asyncio.sleep(1.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (await decoders.load(png(20), "bob"))["error_kind"][0].as_py() is None

    asyncio.run(asyncio.wait_for(main(), 30))


def test_the_slow_decoder_lets_others_go_first():
    async def main() -> int:
        decoders = Decoders(DecodeOptions(HostileView(16), max_seconds=8), each=1)
        task = asyncio.create_task(decoders.load(png(14), "mob"))
        while True:
            await asyncio.sleep(0.1)
            nice = [process.nice() for process in psutil.process_iter() if _is_decoder(process)]
            if max(nice, default=0) > 0:
                task.cancel()
                return max(nice)

    assert asyncio.run(asyncio.wait_for(main(), 30)) == 19


def _is_decoder(process: psutil.Process) -> bool:
    try:
        return process.ppid() == os.getpid() and "geoloc.photos.decoder" in process.cmdline()
    except psutil.Error:
        return False
