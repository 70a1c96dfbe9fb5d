"""What --help says, by what users of a command line expect."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro
from pydantic import BaseModel

from geoloc.cli import COMMANDS, _named
from geoloc.help import Group, short_help


class Inner(BaseModel):
    depth: int = 3
    """How
    deep."""
    rare: str | None = None
    """Seldom needed."""


@dataclass(frozen=True)
class Base:
    kind: Literal["a", "b"] | None = None
    """Which."""


@dataclass(frozen=True)
class Job(Base):
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = "."
    """Where from."""
    names: Annotated[tuple[str, ...], Group("input")] = ("x", "y")
    """Several."""
    sure: bool = True
    """Whether."""
    inner: Annotated[Inner, tyro.conf.OmitArgPrefixes, Group("input", ("depth",))] = field(default_factory=Inner)
    hidden: Inner = field(default_factory=Inner)


def test_options_by_what_they_are_about(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert short_help(Job, "Digs.", "dig").splitlines() == [
        "usage: dig SOURCE [options]",
        "",
        "Digs.",
        "",
        "  SOURCE                    Where from.",
        "",
        "input:",
        "  --names … …               Several. (default: x y)",
        "  --depth N                 How deep. (default: 3)",
        "",
        "options:",
        "  --kind {a,b}              Which.",
        "  --sure                    Whether.",
        "",
        "--help-all tells the other options; --config FILE reads",
        "options from YAML.",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_job_tells_what_its_options_are(name, monkeypatch):
    """In two screens, and nothing without a word about it."""
    monkeypatch.setenv("COLUMNS", "100")
    command = COMMANDS[name]
    lines = short_help(_named(command.options), command.description, name).splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 100
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  --"):
            assert line[28:].strip() or below[28:].strip(), line


def test_every_job_has_what_it_is_about(monkeypatch):
    about = {
        "geotag": ["--recipe", "--index", "--calibration", "--export", "--include", "--gpus"],
        "evaluate": ["--images", "--recipes", "--index", "--rule"],
        "georanking": ["--index", "--references", "--images"],
        "train-ranker": ["--epochs", "--lr", "--workers", "--max-pixels", "--model"],
        "train-alignment": ["--epochs", "--workers", "--encoder"],
        "serve": ["--recipe", "--keys", "--port"],
        "index": ["--encoder", "--ann"],
    }
    for name, options in about.items():
        text = short_help(_named(COMMANDS[name].options), "", name)
        assert all(f"  {option}" in text for option in options), name
