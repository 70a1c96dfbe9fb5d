"""Nothing waits for ever: what a run's stages did last, and the end of a run in which none does anything any more.

Ray Data waits, without a word, for actors that find no node, for models that never load, for a store that never answers. So
every stage says when it is ready, begins and ends a batch, and who hears nothing for long enough stops.
"""

import contextlib
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import ray

from geoloc.errors import StalledError
from geoloc.pipeline.cluster import describe_free
from geoloc.storage import describe

log = logging.getLogger("geoloc")

POLL_S, ANSWER_S, AGAIN_S = 5, 30, 30
"""Between two looks, that a look may take, and between two attempts to wake who waits."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Pulse:
    """On whatever node; where that is lost, another begins anew, which only postpones the end."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._start = time.monotonic()
        self._last = dict.fromkeys(stages, (self._start, "not one of its processes is ready"))
        self._open: Counter[tuple[str, bytes]] = Counter()

    def beat(self, stage: str, what: str) -> None:
        """``what`` it is at from now on."""
        self._last[stage] = time.monotonic(), what

    def begin(self, stage: str, photos: bytes, rows: int) -> int:
        """A batch. Returns how many of the stage's processes began just these photos, and were never heard of again."""
        self.beat(stage, f"began a batch of {rows}")
        deaths = self._open[stage, photos]
        self._open[stage, photos] += 1
        return deaths

    def end(self, stage: str, photos: bytes) -> None:
        """The batch that it began."""
        self.beat(stage, "ended a batch")
        self._open.pop((stage, photos), None)

    def quiet(self) -> tuple[float, str]:
        """Seconds since any stage said anything, and what each of them said last."""
        now = time.monotonic()
        latest = max([self._start, *(when for when, _ in self._last.values())])
        said = (f"{stage}: {what} ({now - when:.0f} s ago)" for stage, (when, what) in self._last.items())
        return now - latest, "; ".join(said)


def stalled(pulse: ray.actor.ActorHandle, minutes: float) -> StalledError | None:
    """Whether no stage has said anything for so long; never for 0 minutes."""
    try:
        seconds, said = ray.get(pulse.quiet.remote(), timeout=ANSWER_S)
    except ray.exceptions.RayError:  # its node is gone, or busy beyond answering: another look will tell
        return None
    if not minutes or seconds <= 60 * minutes:
        return None
    return StalledError(
        f"no stage has done anything for {seconds / 60:.0f} minutes (--stall-minutes {minutes:g}): {said}; free are "
        f"{describe_free()}. The same command goes on from here"
    )


@contextlib.contextmanager
def interrupted_by(find: Callable[[], Exception | None]) -> Iterator[None]:
    """Asks now and then, and raises what is found out of whatever waits in here.

    Only the main thread can be woken; elsewhere nobody asks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found: list[Exception] = []
    stop, ended, before = threading.Event(), False, signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if found:
            raise KeyboardInterrupt
        if callable(before):
            before(number, frame)

    watch = threading.Thread(target=_watch, args=(find, found, stop), daemon=True)
    signal.signal(signal.SIGINT, interrupt)  # what a shell starts in the background ignores it otherwise
    watch.start()
    try:
        try:
            yield
            ended = True
        finally:
            stop.set()
            watch.join()
            signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:
        if not found:
            raise
        if not ended:  # what is found at the very end no longer matters
            raise found[0] from None


def _watch(find: Callable[[], Exception | None], found: list[Exception], stop: threading.Event) -> None:
    while not found and not stop.wait(POLL_S):
        try:
            found.extend(filter(None, [find()]))
        except ray.exceptions.RayError:  # what would tell is on its way to another node
            continue
        except Exception as error:  # the run is not to go unwatched for it
            log.warning("Cannot tell how the run is: %s", describe(error))
    while found and not stop.is_set():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        stop.wait(AGAIN_S)  # what is raised amid a finalizer is lost
