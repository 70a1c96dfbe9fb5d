"""Decoders for requests: quick ones for photos as they are, and a slow one for those that take long."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import load_one
from geoloc.serving.shares import Turns

QUICK_S = 1.0
"""Processor time that a photo may take before it has to wait for the slow decoder: ordinary ones take a tenth of it."""
BEHIND = 19
"""How nice the slow decoder is to all others (nice(2))."""


class Decoders:
    def __init__(self, options: DecodeOptions, quick: int) -> None:
        self._options = options
        self._quick = Lane([Decoder(options) for _ in range(quick)])
        self._slow = Lane([Decoder(options, BEHIND)])

    def start(self) -> None:
        self._quick.start()

    async def load(self, data: bytes | bytearray, who: str) -> pa.Table:
        """LOADED, one row; a photo that cannot be used is ``failed``."""
        quick = min(QUICK_S, self._options.max_seconds)
        loaded = await self._quick.load(data, who, quick)
        if loaded["error_kind"][0].as_py() == "too_slow" and quick < self._options.max_seconds:
            loaded = await self._slow.load(data, who, self._options.max_seconds)
        return loaded


class Lane:
    """Decoders, each for whoever's turn it is."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._free = decoders
        self._turns = Turns(len(decoders))
        self._threads = ThreadPoolExecutor(len(decoders), thread_name_prefix="decode")

    def start(self) -> None:
        for decoder in self._free:
            decoder.start()

    async def load(self, data: bytes | bytearray, who: str, max_seconds: float) -> pa.Table:
        async with self._turns.turn(who):
            decoder = self._free.pop()
            work = asyncio.get_running_loop().run_in_executor(self._threads, load_one, data, decoder, max_seconds)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:  # nobody waits for it any more
                decoder.cancel()
                await asyncio.wait([work])
                raise
            finally:
                self._free.append(decoder)
