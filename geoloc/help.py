"""What ``--help`` says: the options that most runs need, by what they are about. ``--help-all`` has all of them (tyro's own)."""

import ast
import dataclasses
import inspect
import shutil
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass

import tyro

ORDER = {title: number for number, title in enumerate((None, "input", "method", "cluster", "output"))}
INDENT, LABEL = 2, 26
"""Columns before an option, and of an option with its values."""


@dataclass(frozen=True)
class Group:
    """An annotation of a field that holds options: what they are about, and which of them most runs need."""

    title: str
    basic: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Option:
    label: str
    text: str
    title: str | None
    """Of its group; None for a positional argument."""


def short_help(options: type, description: str, program: str) -> str:
    """The options class's own fields, and of the groups in it what is basic."""
    width = min(shutil.get_terminal_size().columns, 110)
    shown = list(_shown(options))
    arguments = [option.label for option in shown if option.title is None]
    lines = [" ".join(["usage:", program, *arguments, "[options]"]), "", description]
    titles = sorted({option.title: None for option in shown}, key=lambda title: ORDER.get(title, len(ORDER)))
    for title in titles:
        lines += ["", *([f"{title}:"] if title else [])]
        for option in shown:
            lines += _lines(option, width) if option.title == title else []
    lines += ["", *textwrap.wrap("--help-all tells the other options; --config FILE reads options from YAML.", width)]
    return "\n".join(lines)


def _shown(options: type, group: Group | None = None) -> Iterator[_Option]:
    """All of a job's options, or the basic ones of a group of them; and those of the groups inside."""
    texts, defaults, kinds = _texts(options), _defaults(options), typing.get_type_hints(options, include_extras=True)
    first = group.basic if group else ()
    for name, kind in {name: kinds[name] for name in (*first, *kinds)}.items():
        kind, marks = (kind.__origin__, kind.__metadata__) if hasattr(kind, "__metadata__") else (kind, ())
        inner = next((mark for mark in marks if isinstance(mark, Group)), None)
        if _holds_options(kind):
            if inner:
                yield from _shown(kind, inner)
        elif tyro.conf.Positional in marks:
            metavar = next((mark.metavar for mark in marks if hasattr(mark, "metavar")), name.upper())
            yield _Option(metavar, texts[name], None)
        elif group is None or name in group.basic:
            text, default = texts.get(name, ""), defaults.get(name)
            if default and not isinstance(default, bool) and "default" not in text:
                text += f" (default: {' '.join(default) if isinstance(default, tuple) else default})"
            label = f"--{name.replace('_', '-')} {_values(kind)}".rstrip()
            yield _Option(label, text, (inner or group or Group("options")).title)


def _holds_options(kind: object) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "model_fields"))


def _defaults(options: type) -> dict[str, object]:
    if hasattr(options, "model_fields"):
        return {name: field.default for name, field in options.model_fields.items()}
    missing = dataclasses.MISSING
    return {field.name: field.default for field in dataclasses.fields(options) if field.default is not missing}


def _texts(options: type) -> dict[str, str]:
    """By field: the string below it in the class's source, or in that of the class it is from."""
    texts = {}
    for base in reversed(options.__mro__):
        if "__annotations__" not in vars(base):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        except (OSError, TypeError):  # a class of a console has no source
            continue
        for field, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                texts[field.target.id] = " ".join(below.value.value.split()) if said else ""
    return texts


def _values(kind: object) -> str:
    """What an option is given."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if typing.get_origin(kind) is tuple:
        return f"{_values(arguments[0])} …"
    if type(None) in arguments:
        return _values(next(one for one in arguments if one is not type(None)))
    return {bool: "", int: "N", float: "X"}.get(kind, "…")


def _lines(option: _Option, width: int) -> list[str]:
    wrapped, indent = textwrap.wrap(option.text, width - LABEL - INDENT) or [""], " " * INDENT
    if len(option.label) < LABEL:
        first, rest = f"{indent}{option.label:<{LABEL}}{wrapped[0]}", wrapped[1:]
    else:
        first, rest = f"{indent}{option.label}", wrapped
    return [first, *(" " * (INDENT + LABEL) + line for line in rest)]
