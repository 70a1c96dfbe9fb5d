"""A job's options: a dataclass becomes a command line and a YAML file; what is wrong with them is said and nothing is done."""

import dataclasses
import sys
from pathlib import Path
from typing import TypeVar

import tyro
import yaml

from geoloc.errors import UsageError

Options = TypeVar("Options")


def parse(options: type[Options], description: str, arguments: list[str] | None = None) -> Options:
    """Options from the command line; ``--config FILE`` gives others than the defaults from YAML, nested as they are.

    Exits with a message on what tyro refuses; raises UsageError for a file that does not fit.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    config, rest = _take_config(arguments)
    description += " Options can also be given in a YAML file, nested as they are here: --config FILE."
    if not config:
        return tyro.cli(options, description=description, args=rest)
    return tyro.cli(options, description=description, args=rest, default=_from_mapping(options, config, ""))


def _take_config(arguments: list[str]) -> tuple[dict, list[str]]:
    if "--config" not in arguments:
        return {}, arguments
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise UsageError("--config: names no file")
    name = arguments[at + 1]
    try:
        config = yaml.safe_load(Path(name).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--config {name}: is not a mapping of options to values")
    return config, arguments[:at] + arguments[at + 2 :]


def _from_mapping(options: type, values: dict, prefix: str) -> object:
    fields = {field.name: field for field in dataclasses.fields(options)}
    given = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UsageError(f"--config: unknown option {prefix}{key}; there is {', '.join(sorted(fields))}")
        kind = getattr(fields[name].type, "__origin__", fields[name].type)  # of Annotated
        value = tuple(value) if isinstance(value, list) else value
        given[name] = _from_mapping(kind, value, f"{prefix}{key}.") if dataclasses.is_dataclass(kind) else value
    missing = {
        name: tyro.MISSING
        for name, field in fields.items()
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return options(**given, **missing)
