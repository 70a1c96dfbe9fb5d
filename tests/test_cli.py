"""The command, and what it does with mistakes and with other people's file names."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from geoloc import __version__
from geoloc.cli import COMMANDS, escaped
from geoloc.options import parse
from tests.conftest import REPOSITORY


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "geoloc.cli", *arguments], capture_output=True, text=True)


def test_it_lists_its_commands():
    listed = run().stdout
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert run("--version").stdout == f"geoloc {__version__}\n"
    wrong = run("geotga")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: geotga: there is geotag, index, ")


def test_the_package_installs_it():
    done = subprocess.run([Path(sys.executable).parent / "geoloc", "--version"], capture_output=True, text=True)
    assert done.stdout == f"geoloc {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_neither_ray_nor_torch(name):
    code = "import sys; sys.argv = ['geoloc', sys.argv[1], '--help']\nfrom geoloc.cli import main\ntry: main()\n"
    code += "finally: print(sorted({'ray', 'torch', 'bokeh'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
    assert f"usage: geoloc {name}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_two_options_of_a_command_have_one_name(name, capsys):
    """Which tyro finds out only when it reads a command line."""
    module, _, options = COMMANDS[name].options.partition(":")
    with pytest.raises(SystemExit) as left:
        parse(getattr(importlib.import_module(module), options), "", ["--help-all"], name)
    assert left.value.code == 0
    assert f"usage: {name}" in capsys.readouterr().out


@pytest.mark.parametrize("script", sorted(path.name for path in (REPOSITORY / "jobs").glob("*.py")))
def test_every_script_is_a_command(script):
    name = (REPOSITORY / "jobs" / script).read_text().rpartition('run_command("')[2].partition('"')[0]
    assert name in COMMANDS


def test_what_a_terminal_would_obey_is_written_out():
    assert escaped("a\x1b[2Jb\r\x9bc\u202egpj.exe") == "a\\x1b[2Jb\\r\\x9bc\\u202egpj.exe"
    assert escaped("Čeština, 写真\nnext line") == "Čeština, 写真\nnext line"


def test_log_lines_are_escaped():
    code = "import logging; from geoloc.cli import run_job\n"
    code += "run_job(lambda: logging.getLogger('geoloc').info('photo %s', 'a\\x1b[31m\\nerror: b\\u200f') or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "photo a\\x1b[31m\\nerror: b\\u200f\n"
