"""A job's options: a dataclass becomes a command line and a YAML file; what is wrong with them is said and nothing is done."""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
import yaml
from pydantic import BaseModel

from geoloc.errors import UsageError
from geoloc.help import short_help

Options = TypeVar("Options")


def parse(
    options: type[Options], description: str, arguments: list[str] | None = None, program: str | None = None
) -> Options:
    """Options from the command line; ``--config FILE`` gives others than the defaults from YAML, nested as they are; ``--help``
    tells the basic ones, ``--help-all`` all.

    Exits with a message on what tyro refuses; raises UsageError for a file that does not fit.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "-h" in arguments or "--help" in arguments:
        print(short_help(options, description, program or Path(sys.argv[0]).name))
        sys.exit(0)
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    config, rest = _take_config(arguments)
    description += " Options can also be given in a YAML file, nested as they are here: --config FILE."
    if not config:
        return tyro.cli(options, prog=program, description=description, args=rest)
    return tyro.cli(
        options, prog=program, description=description, args=rest, default=_from_mapping(options, config, "")
    )


def _take_config(arguments: list[str]) -> tuple[dict, list[str]]:
    if "--config" not in arguments:
        return {}, arguments
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise UsageError("--config: names no file")
    name = arguments[at + 1]
    try:
        config = yaml.safe_load(Path(name).expanduser().read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--config {name}: is not a mapping of options to values")
    return config, arguments[:at] + arguments[at + 2 :]


def _from_mapping(options: type, values: object, prefix: str) -> object:
    if not isinstance(values, dict):
        raise UsageError(f"--config: {prefix.rstrip('.')}: is not a mapping of options to values")
    fields = _fields(options)
    given = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UsageError(f"--config: unknown option {prefix}{key}; there is {', '.join(sorted(fields))}")
        kind = fields[name][0]
        kind = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
        if _has_fields(kind):
            given[name] = _from_mapping(kind, value, f"{prefix}{key}.")
        else:
            given[name] = _checked(kind, value, f"{prefix}{key}")
    for name, (_, required) in fields.items():
        if required:
            given.setdefault(name, tyro.MISSING)
    return options(**given)


def _has_fields(kind: object) -> bool:
    return dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _fields(options: type) -> dict[str, tuple[object, bool]]:
    """Of a dataclass, or a model of pydantic: each one's type, and whether it has no default."""
    if dataclasses.is_dataclass(options):
        missing = dataclasses.MISSING
        return {
            field.name: (field.type, field.default is missing and field.default_factory is missing)
            for field in dataclasses.fields(options)
        }
    return {name: (field.annotation, field.is_required()) for name, field in options.model_fields.items()}


def _checked(kind: type, value: object, name: str) -> object:
    """The value as the command line would have it, which knows the types."""
    if value is None:
        return value
    words = [str(word) for word in value] if isinstance(value, list) else [str(value)]
    try:
        return tyro.cli(kind, args=words, console_outputs=False)
    except SystemExit as error:
        raise UsageError(f"--config: {name}: {value!r} does not fit") from error
