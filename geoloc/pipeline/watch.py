"""Nothing waits for ever: what a run's stages did last, and the end of a run in which none does anything any more.

Ray Data waits, without a word, for actors that find no node, for models that never load, for a store that never answers. So
every stage says when it is ready, begins and ends a batch, and who hears nothing for long enough stops.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import ray

from geoloc.errors import StalledError

POLL_S, ANSWER_S = 5, 30
"""Between two looks, and that a look may take."""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Pulse:
    """On whatever node; where that is lost, another begins anew, which only postpones the end."""

    def __init__(self, stages: Sequence[str]) -> None:
        self._start = time.monotonic()
        self._last = dict.fromkeys(stages, (self._start, "not one of its processes is ready"))

    def beat(self, stage: str, what: str) -> None:
        """``what`` it is at from now on."""
        self._last[stage] = time.monotonic(), what

    def quiet(self) -> tuple[float, str]:
        """Seconds since any stage said anything, and what each of them said last."""
        now = time.monotonic()
        latest = max([self._start, *(when for when, _ in self._last.values())])
        said = (f"{stage}: {what} ({now - when:.0f} s ago)" for stage, (when, what) in self._last.items())
        return now - latest, "; ".join(said)


@contextlib.contextmanager
def stopped_when_stalled(pulse: ray.actor.ActorHandle, minutes: float) -> Iterator[None]:
    """Raises StalledError out of what waits in here, where no stage has said anything for so long; never for 0 minutes.

    Only the main thread can be woken; elsewhere nobody watches.
    """
    if not minutes or threading.current_thread() is not threading.main_thread():
        yield
        return
    reasons: list[str] = []
    stop = threading.Event()
    watch = threading.Thread(target=_watch, args=(pulse, minutes, reasons, stop), daemon=True)
    watch.start()
    try:
        yield
    except KeyboardInterrupt:
        if reasons:
            raise StalledError(reasons[0]) from None
        raise
    finally:
        stop.set()
        watch.join()


def _watch(pulse: ray.actor.ActorHandle, minutes: float, reasons: list[str], stop: threading.Event) -> None:
    while not stop.wait(POLL_S):
        try:
            seconds, said = ray.get(pulse.quiet.remote(), timeout=ANSWER_S)
        except ray.exceptions.RayError:  # its node is gone, or busy beyond answering: another look will tell
            continue
        if seconds > 60 * minutes:
            reasons.append(
                f"no stage has done anything for {seconds / 60:.0f} minutes (--stall-minutes {minutes:g}): {said}; free are "
                f"{_free()}. The same command goes on from here"
            )
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return


def _free() -> str:
    there, free = ray.cluster_resources(), ray.available_resources()
    return " and ".join(f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
