from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
import tyro

from geoloc.errors import UsageError
from geoloc.options import parse
from geoloc.pipeline.job_options import ArchiveOptions, IndexOptions


@dataclass(frozen=True)
class Inner:
    depth: int = 3
    """How deep."""


@dataclass(frozen=True)
class Job:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Where from."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    names: tuple[str, ...] = ()
    """Several."""
    inner: Inner = field(default_factory=Inner)


def test_command_line():
    assert parse(Job, "", ["here", "--kind", "b", "--inner.depth", "5"]) == Job("here", "b", (), Inner(5))


def test_a_file_gives_defaults_and_the_command_line_wins(tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text("source: there\nkind: b\nnames: [x, y]\ninner: {depth: 9}\n")
    assert parse(Job, "", ["--config", str(config)]) == Job("there", "b", ("x", "y"), Inner(9))
    assert parse(Job, "", ["here", "--config", str(config), "--kind", "a"]) == Job("here", "a", ("x", "y"), Inner(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sauce: x", "unknown option sauce; there is"),
        ("inner: {length: 1}", r"unknown option inner\.length"),
        ("inner: 5", "inner: is not a mapping"),
        ("kind: c", "kind: 'c'"),
        ("inner: {depth: deep}", r"inner\.depth: 'deep'"),
        ("- a list", "not a mapping"),
        ("a: [", "while parsing"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, text, message):
    config = tmp_path / "job.yaml"
    config.write_text(text)
    with pytest.raises(UsageError, match=message):
        parse(Job, "", ["here", "--config", str(config)])


def test_a_missing_file_and_a_missing_argument(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml"):
        parse(Job, "", ["--config", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit):
        parse(Job, "", [])


@pytest.mark.parametrize("options", [ArchiveOptions, IndexOptions])
def test_help_documents_every_option(options, capsys):
    with pytest.raises(SystemExit):
        parse(options, "What it does.", ["--help-all"])
    text = capsys.readouterr().out
    assert "What it does." in text
    for line in text.splitlines():
        assert not line.strip().startswith("│ --") or "(default" in text
    assert "SOURCE" in text
    assert "--max-photo-mb" in text
    assert "--s3.endpoint" in text
