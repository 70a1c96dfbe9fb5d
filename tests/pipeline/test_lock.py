import json
import subprocess
import sys
import time

import psutil
import pytest

from geoloc.errors import UsageError
from geoloc.pipeline.lock import NAME, STALE_S, held
from geoloc.storage import Folder


def holder(**values) -> bytes:
    return json.dumps(
        {"token": "x", "host": "elsewhere", "pid": 1, "started": 0.0, "beat": time.time()} | values
    ).encode()


def test_a_folder_is_held_once(tmp_path):
    folder = Folder(str(tmp_path))
    with (
        held(folder),
        pytest.raises(UsageError, match=f"a run on .* \\(process {psutil.Process().pid}\\) is writing there"),
        held(folder),
    ):
        pass
    with held(folder):
        pass
    assert not folder.exists(NAME)


def test_a_killed_run_is_taken_over_at_once_where_it_ran(tmp_path):
    code = f"from geoloc.pipeline.lock import held; from geoloc.storage import Folder\nwith held(Folder({str(tmp_path)!r})): print('held', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="is writing there"), held(Folder(str(tmp_path))):
        pass
    process.kill()
    process.wait()
    with held(Folder(str(tmp_path))):
        pass


def test_a_run_elsewhere_is_alive_while_its_heart_beats(tmp_path, s3):
    s3.create_bucket(Bucket="locks")
    for folder in (Folder(str(tmp_path)), Folder("s3://locks/run")):
        folder.write(NAME, holder())
        with pytest.raises(UsageError, match="elsewhere"), held(folder):
            pass
        folder.write(NAME, holder(beat=time.time() - STALE_S - 1))
        with held(folder):
            pass
