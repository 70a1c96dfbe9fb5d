"""A job's options: a dataclass becomes a command line and a YAML file; what is wrong with them is said and nothing is done."""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
import yaml

from geoloc.errors import UsageError

Options = TypeVar("Options")


def parse(
    options: type[Options], description: str, arguments: list[str] | None = None, program: str | None = None
) -> Options:
    """Options from the command line; ``--config FILE`` gives others than the defaults from YAML, nested as they are.

    Exits with a message on what tyro refuses; raises UsageError for a file that does not fit.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
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
    fields = {field.name: field for field in dataclasses.fields(options)}
    given = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UsageError(f"--config: unknown option {prefix}{key}; there is {', '.join(sorted(fields))}")
        kind = fields[name].type
        kind = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
        if dataclasses.is_dataclass(kind):
            given[name] = _from_mapping(kind, value, f"{prefix}{key}.")
        else:
            given[name] = _checked(kind, value, f"{prefix}{key}")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            given.setdefault(name, tyro.MISSING)
    return options(**given)


def _checked(kind: type, value: object, name: str) -> object:
    """The value as the command line would have it, which knows the types."""
    if value is None:
        return value
    words = [str(word) for word in value] if isinstance(value, list) else [str(value)]
    try:
        return tyro.cli(kind, args=words, console_outputs=False)
    except SystemExit as error:
        raise UsageError(f"--config: {name}: {value!r} does not fit") from error
