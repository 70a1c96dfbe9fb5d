import re

from geoloc.pipeline import progress as module
from geoloc.pipeline.progress import Progress
from geoloc.pipeline.stages import Work


def test_lines_tell_rate_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress = Progress(1000, every_s=0)
    progress.add({"located": 90, "failed": 10})
    progress.add({"located": 200})
    progress.add({"located": 700})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[0:00:10] 100 of 1,000 (10 %) · warming up · 10 failed, 90 located"
    assert lines[1] == "[0:00:20] 300 of 1,000 (30 %) · 20.0 photos/s · 0:00:35 left · 10 failed, 290 located"
    assert lines[2].startswith("[0:00:30] 1,000 of 1,000 (100 %) · 45.0 photos/s · 0:00:00 left")
    assert (progress.first, progress.rate, progress.seconds) == ((10.0, 100), 45.0, 40.0)


def test_a_log_is_not_flooded(capsys):
    progress = Progress(1000, every_s=60)
    for _ in range(99):
        progress.add({"located": 10})
    assert capsys.readouterr().err == ""
    progress.add({"located": 10})
    assert re.match(r"\[0:00:0\d\] 1,000 of 1,000", capsys.readouterr().err)


def test_start_up_is_told_apart():
    work = Work(1000, 30.0, 100, 10.0, 45.0, {"fetch_s": 1.0, "decode_s": 2.0})
    assert work.lines() == [
        "1,000 photos in 30.0 s: 10.0 s until the first 100, start-up included, then 45.0 photos/s; "
        "summed over workers: fetch 1.0 s, decode 2.0 s"
    ]
    assert Work(64, 16.0, 64, 15.0, 4.0).pace() == "4.0 photos/s, start-up included"
    assert Work().lines() == []
