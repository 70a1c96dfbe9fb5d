"""Decoders for requests: quick ones for photos as they are, and a slow one for those that take long."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.load import load_one
from geoloc.serving.shares import Turns

QUICK_S = 0.3
"""Processor time that a photo may take before it has to wait for the slow decoder: an ordinary one takes a tenth of it, a JPEG of 50
megapixels all."""
BEHIND = 19
"""How nice the slow decoder is to all others (nice(2))."""


class Decoders:
    def __init__(self, options: DecodeOptions, each: int) -> None:
        """``each``: quick decoders that one may keep busy at once. There is one more, for others who come."""
        self._options, self._each = options, each
        self._quick = Lane([Decoder(options) for _ in range(each + 1)])
        self._slow = Lane([Decoder(options, BEHIND)])
        self._slowing: Counter[str] = Counter()

    def start(self) -> None:
        self._quick.start()

    async def load(self, data: bytes | bytearray, client: str) -> pa.Table:
        """LOADED, one row; a photo that cannot be used is ``failed``."""
        quick = min(QUICK_S, self._options.max_seconds)
        # who has a slow photo may well bring others: one quick decoder is enough for finding that out
        loaded = await self._quick.load(data, client, quick, 1 if self._slowing[client] else self._each)
        if loaded["error_kind"][0].as_py() != "too_slow" or quick == self._options.max_seconds:
            return loaded
        self._slowing[client] += 1
        try:
            return await self._slow.load(data, client, self._options.max_seconds, 1)
        finally:
            self._slowing[client] -= 1
            if not self._slowing[client]:
                del self._slowing[client]


class Lane:
    """Decoders, each for whoever's turn it is."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._free = decoders
        self._turns = Turns(len(decoders))
        self._threads = ThreadPoolExecutor(len(decoders), thread_name_prefix="decode")

    def start(self) -> None:
        for decoder in self._free:
            decoder.start()

    async def load(self, data: bytes | bytearray, client: str, max_seconds: float, most: int) -> pa.Table:
        """``most``: decoders that ``client`` may keep busy at once."""
        async with self._turns.turn(client, most):
            decoder = self._free.pop()
            work = asyncio.get_running_loop().run_in_executor(self._threads, _load, data, decoder, max_seconds)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:  # nobody waits for it any more
                decoder.cancel()
                await asyncio.wait([work])
                raise
            finally:
                self._free.append(decoder)


def _load(data: bytes | bytearray, decoder: Decoder, max_seconds: float) -> pa.Table:
    """Where the photo has killed the decoder, the next one's start is part of what the photo cost."""
    loaded = load_one(data, decoder, max_seconds)
    decoder.start()
    return loaded
