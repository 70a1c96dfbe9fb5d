"""What a file does to its decoder, it does there and nowhere else."""

import io
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
from PIL import Image

from geoloc.photos.decoder import Decoder
from geoloc.photos.examine import DecodeOptions, examined
from geoloc.photos.views import AreaView, Picture, View
from geoloc.toy.archive import _exif

PLACE = {"uri": "a.jpg", "lat": None, "lon": None}


@dataclass(frozen=True)
class HostileView(View):
    """Of a picture 13 pixels wide the decoder dies, of one of 14 it computes for ever, of one of 15 it sleeps, of one of 16
    it wants 100 GB, and one of 17 meets a mistake of ours."""

    def pixels(self, picture: Picture) -> bytes:
        width = picture.size[0]
        if width == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        while width == 14:
            pass
        if width == 15:
            time.sleep(1000)
        if width == 17:
            return bytes(1 // (width - 17))
        if width == 16:
            np.zeros(100 << 30, np.uint8)
        return super().pixels(picture)


def children() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter()
        if process.ppid() == os.getpid() and "geoloc.photos.decoder" in process.cmdline()
    ]


def png(width: int, height: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def decoder():
    with Decoder(DecodeOptions(HostileView(16), max_seconds=0.4)) as decoder:
        yield decoder


def test_the_same_as_without_a_process():
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "olive").save(buffer, "JPEG", exif=_exif(10.0, 20.0, 6).tobytes())
    options = DecodeOptions(View(32), picture_view=AreaView(28, 28 * 28, 28 * 28 * 8), thumbnail_px=50)
    expected = examined(buffer.getvalue(), PLACE, (), options)
    with Decoder(options) as decoder:
        assert decoder.examine(buffer.getvalue(), PLACE) == expected
        assert decoder.examine(b"none", PLACE) == examined(b"none", PLACE, (), options)
        assert decoder.examine(bytearray(buffer.getvalue()), PLACE) == expected
    assert expected["taken_at"].year == 2023
    assert {"pixels", "picture", "thumbnail", "exif_lat"} <= set(expected)


@pytest.mark.parametrize(
    ("width", "kind"), [(13, "crashed"), (14, "too_slow"), (15, "too_slow"), (16, "too_much_memory")]
)
def test_hostile_photos_are_rows_with_a_reason_and_the_next_is_read(decoder, width, kind):
    row = decoder.examine(png(width), PLACE)
    assert (row["status"], row["error_kind"]) == ("failed", kind)
    assert len(decoder.examine(png(20), PLACE)["pixels"]) == 16 * 16 * 3


def test_a_photo_may_be_given_less_time(decoder):
    decoder.start()
    start = time.monotonic()
    assert decoder.examine(png(14), PLACE, max_seconds=0.1)["error"] == "decoding it took over 0.1 s"
    assert time.monotonic() - start < 5


def test_a_photo_that_nobody_waits_for_is_given_up():
    with Decoder(DecodeOptions(HostileView(16))) as decoder:
        threading.Timer(1.5, decoder.cancel).start()
        assert decoder.examine(png(14), PLACE)["error_kind"] == "crashed"
        assert "pixels" in decoder.examine(png(20), PLACE)


def test_the_memory_of_a_large_photo_is_free_afterwards():
    large = png(9000, 9000)
    with Decoder(DecodeOptions(View(32), max_pixels=100_000_000)) as decoder:
        decoder.examine(png(20), PLACE)
        [before] = children()
        assert "pixels" in decoder.examine(large, PLACE)
        decoder.examine(png(20), PLACE)
        [after] = children()
        assert after.pid != before.pid
        assert after.memory_info().rss < 150 << 20


def test_credentials_stay_here(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with Decoder(DecodeOptions(View(32))) as decoder:
        decoder.examine(b"", PLACE)
        [process] = children()
        assert "AWS_SECRET_ACCESS_KEY" not in process.environ()


def test_it_ends_with_whoever_asks():
    decoder = Decoder(DecodeOptions(View(32)))
    decoder.examine(b"", PLACE)
    [process] = children()
    del decoder
    assert not process.is_running()


def test_a_decoder_that_cannot_begin_is_no_photos_fault(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Decoder(DecodeOptions(HostileView(16))) as decoder, pytest.raises(RuntimeError, match="ended with status 1"):
        decoder.examine(png(20), PLACE)


def test_an_interrupted_photo_leaves_no_answer_to_the_next():
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Decoder(DecodeOptions(HostileView(16), max_seconds=2)) as decoder:
        decoder.start()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                decoder.examine(png(14), PLACE)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert decoder.examine(png(21), PLACE)["width"] == 21


def test_an_error_of_ours_is_told(decoder):
    assert decoder.examine(png(17), PLACE)["error"] == "ZeroDivisionError: integer division or modulo by zero"
