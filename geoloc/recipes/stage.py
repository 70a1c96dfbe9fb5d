"""What carries a recipe out: objects that hold models on a device, one after the other, and how each is built.

torch and what builds on it take many seconds to import. They are imported where models live, not here: drivers, loading tasks
and ``--help`` do without them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

Answer = Callable[[pa.Table], pa.Table]
"""A batch of rows to the same rows, with more in them."""
Build = Callable[[str, int], Answer]
"""Loads the models for a device (``cuda``, ``cpu``) and so many threads of it."""


@dataclass(frozen=True)
class Stage:
    name: str
    """What its processes are called."""
    build: Build
    """Can be pickled."""
    cost: float = 1.0
    """Of a device's time for a photo, relative to other stages': devices are given out by it."""
    share: float = 1.0
    """Of a device that stages run on together, relative to other stages'."""
    gpu_rows: int = 256
    """Photos it takes at once on a GPU."""
    cpu_rows: int | None = None
    """On a CPU; None for 16 a thread."""
    elsewhere: bool = False
    """Its models are: one process, which computes little, asks them."""
    calls: int = 1
    """Batches that a process works on at once."""
    gpu_calls: int = 1
    """On a GPU: while one is there, what comes before and after the models is done for another."""
    whole_index: bool = False
    """Holds an index, which several GPUs may have to share."""

    def rows(self, device: str, threads: int) -> int:
        """Photos it takes at once."""
        if device == "cuda":
            return self.gpu_rows
        return self.cpu_rows or 16 * threads
