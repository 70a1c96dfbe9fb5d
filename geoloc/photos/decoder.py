"""A process that looks at photos, and can be killed: whatever a file does to its decoder, it does there.

What a photo may cost is bounded by the kernel: processor time by a timer, memory by a limit. The process that asks waits no longer
than either allows, loses at most that process, and never sees a pixel that it has not asked for.
"""

import contextlib
import json
import os
import pickle
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from geoloc.errors import PhotoError
from geoloc.photos.examine import NOWHERE, DecodeOptions, examined
from geoloc.photos.metadata import Sidecar

TRIES = 2
"""A photo is given up after so many deaths; one can be chance (a process killed where memory ran short)."""
WAITING = 5
"""How many times its processor time a photo may take by the clock: on a crowded machine, or where a decoder sleeps."""
BASE_BYTES, BYTES_A_PIXEL = 512 << 20, 16
"""Of memory that a decoder may have: pixels as Pillow holds them take 4 bytes, and conversions need them several times."""
LARGE_BYTES = 512 << 20
"""A decoder that has been as large ends with the photo, and another begins: the memory is certain to be free again."""
END_S = 1
"""That a process which has closed its pipe has for ending."""
_READY = b"ready"
_LENGTH = struct.Struct("<q")
_PIPE_BYTES = 1 << 20
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ")
"""Of the environment: a decoder has no business with credentials."""


class Decoder:
    """Looks at one photo at a time. The process starts with the first, and anew after one that killed it.

    >>> from geoloc.photos.views import View
    >>> with Decoder(DecodeOptions(View(224))) as decoder:
    ...     decoder.examine(b"no image")["error_kind"]
    'not_an_image'
    """

    def __init__(self, options: DecodeOptions, niceness: int = 0) -> None:
        """``niceness``: of the process, as nice(2) has it."""
        self._options, self._niceness = options, niceness
        self._process: subprocess.Popen | None = None
        self._ready = self._cancelled = False
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()  # a Popen that is let go of keeps its pipes, and so its process

    def start(self) -> None:
        """Begin the process now, so that the next photo need not wait for it. Raises RuntimeError where it cannot begin."""
        if self._process is None:
            self._process, self._ready = _start(), False
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                _write(self._process.stdin, pickle.dumps((self._options, self._niceness)))
        if not self._ready:
            try:
                self._ready = _read(self._process.stdout) == _READY
            except EOFError:
                status = self._process.wait()
                self.close()
                raise RuntimeError(
                    f"the process that decodes photos ended with status {status} before any (python -m {__name__} tells why)"
                ) from None

    def close(self) -> None:
        """End the process; whoever asks later starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what it has not taken is still to be written
                    pipe.close()
            self._process = None

    def cancel(self) -> None:
        """Give up the photo that another thread has asked about; it is ``crashed`` there."""
        self._cancelled = True
        process = self._process
        if process is not None:
            process.kill()

    def examine(
        self,
        data: bytes | bytearray,
        place: dict = NOWHERE,
        sidecars: Sequence[Sidecar] = (),
        max_seconds: float | None = None,
    ) -> dict:
        """As geoloc.photos.examine.examined. A photo that takes too much is ``too_slow`` or ``too_much_memory``, one
        that kills the decoder ``crashed``."""
        seconds = self._options.max_seconds if max_seconds is None else max_seconds
        with self._one_at_a_time:
            self._cancelled, tries = False, 0
            try:
                while tries < TRIES and not self._cancelled:
                    tries += 1
                    row = self._answer(data, place, sidecars, seconds)
                    if row is not None:
                        return row
            except PhotoError as error:
                return error.columns()
        return PhotoError("crashed", "decoding it killed the process, more than once").columns()

    def _answer(self, data: bytes | bytearray, place: dict, sidecars: Sequence[Sidecar], seconds: float) -> dict | None:
        """None where the process died. Raises PhotoError where it was killed for taking too long; RuntimeError as ``start``."""
        try:
            self.start()
        except RuntimeError:
            if self._cancelled:
                return None
            raise
        process = self._process
        try:
            _write(process.stdin, pickle.dumps((seconds, place, tuple(sidecars))), data)
            if not _is_readable(process.stdout, WAITING * seconds):
                raise _too_slow(seconds)
            row, ends = _read_row(process.stdout)
        except (OSError, EOFError, ValueError):
            row, ends = None, True
        except BaseException:  # whatever it was: the answer that is still to come would be taken for the next photo's
            self.close()
            raise
        if ends:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            status = process.returncode
            self.close()
            if row is None and status == -signal.SIGPROF:
                raise _too_slow(seconds)
        return row


def _too_slow(seconds: float) -> PhotoError:
    return PhotoError("too_slow", f"decoding it took over {seconds:g} s")


def _start() -> subprocess.Popen:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],  # and nothing from the folder that happens to be the current one
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libraries' remarks on what strangers send
        env=environment | {"OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,  # an interrupt from the keyboard is for the job to deal with
    )
    _widen(process.stdin)
    _widen(process.stdout)
    return process


def _is_readable(pipe: BinaryIO, seconds: float) -> bool:
    """Within so long; as it is at its end."""
    poll = select.poll()  # select() knows no file beyond the 1,024th, which a service may well have
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(min(1000 * seconds, 2**31 - 1)))


def _widen(pipe: BinaryIO) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError):  # beyond Linux, or beyond what a user may have
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _write(pipe: BinaryIO, *parts: bytes | bytearray) -> None:
    for part in parts:
        pipe.write(_LENGTH.pack(len(part)))
        pipe.write(part)
    pipe.flush()


def _read(pipe: BinaryIO) -> bytes:
    """Raises EOFError."""
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: BinaryIO, length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _write_row(pipe: BinaryIO, row: dict, ends: bool) -> None:
    """As JSON, and pixels behind it: what comes from a process that has read a stranger's file is not unpickled."""
    blobs = {name: row.pop(name) for name in ("pixels", "thumbnail") if name in row}
    if picture := row.get("picture"):
        blobs["picture"] = picture.pop("pixels")
    if row.get("taken_at"):
        row["taken_at"] = row["taken_at"].isoformat()
    _write(pipe, json.dumps({"row": row, "blobs": list(blobs), "ends": ends}).encode(), *blobs.values())


def _read_row(pipe: BinaryIO) -> tuple[dict, bool]:
    """And whether the process ends with it. Raises EOFError and ValueError."""
    head = json.loads(_read(pipe))
    row = head["row"]
    for name in head["blobs"]:
        if name == "picture":
            row["picture"]["pixels"] = _read(pipe)
        else:
            row[name] = _read(pipe)
    if row.get("taken_at"):
        row["taken_at"] = datetime.fromisoformat(row["taken_at"])
    return row, head["ends"]


def _peak_bytes() -> int:
    """Of this process so far; 0 where that is not told. (getrusage(2) counts what its parent had before exec.)"""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) << 10 if found else 0


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The other process: until there is nobody left who asks."""
    options, niceness = pickle.loads(_read(requests))  # ours: this end reads what the asking process wrote
    os.nice(niceness)
    limit = BASE_BYTES + BYTES_A_PIXEL * options.max_pixels
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # the first to go where memory runs short; Linux alone has it
        Path("/proc/self/oom_score_adj").write_text("1000")
    _write(answers, _READY)
    while True:
        try:
            seconds, place, sidecars = pickle.loads(_read(requests))
            data = _read(requests)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, seconds)  # at its end SIGPROF kills, even amid a library's loop
        try:
            row = examined(data, place, sidecars, options)
        except MemoryError:
            row = PhotoError("too_much_memory", f"decoding it took over {limit / 2**30:.1f} GB").columns()
        except Exception as error:  # of a library, or of ours: told, where dying of it would only say that it died
            row = PhotoError("corrupt", f"{type(error).__name__}: {error}").columns()
        signal.setitimer(signal.ITIMER_PROF, 0)
        ends = _peak_bytes() > LARGE_BYTES
        _write_row(answers, row, ends)
        del data, row
        if ends:
            return


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
