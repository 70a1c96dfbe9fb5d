import subprocess
import sys
from pathlib import Path

import pytest

from geoloc.errors import UsageError
from geoloc.storage import Folder

FULL = """
import resource, sys
from geoloc.storage import Folder
from geoloc.errors import UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    {0}
except UsageError as error:
    print(error)
"""


def on_a_full_disk(folder: Path, limit: int, statement: str) -> str:
    """What a process says for which files end at ``limit`` bytes, as they do on a disk without more space."""
    command = [sys.executable, "-c", FULL.format(statement), str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_full_disk_leaves_what_was_there_and_no_draft(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("part", b"whole")
    said = on_a_full_disk(tmp_path, 1 << 12, "Folder(sys.argv[1]).write('part', bytes(1 << 16))")
    assert said.startswith(f"{tmp_path}: no space is left to write part")
    assert said.count("\n") == 1
    assert folder.read("part") == b"whole"
    assert folder.names() == ["part"]


def test_a_disk_that_takes_an_empty_file_alone_is_no_place_for_results(tmp_path):
    said = on_a_full_disk(tmp_path, 0, "Folder(sys.argv[1]).check_writable('OUTPUT')")
    assert said.startswith(f"OUTPUT {tmp_path}: no space is left")
    assert not list(tmp_path.iterdir())


def test_a_relative_path_in_rays_copy_of_a_working_directory_is_refused(tmp_path, monkeypatch):
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(
        UsageError, match=r"results: is a relative path, and a job submitted with --working-dir runs in a"
    ):
        Folder("results")
    assert Folder("/results").uri == "/results"
    assert Folder("s3://bucket/results").uri == "s3://bucket/results"


def test_home_is_known(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Folder("~/photos").uri == "/home/somebody/photos"
