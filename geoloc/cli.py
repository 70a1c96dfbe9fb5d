"""The command ``geoloc``, and the scripts in jobs/, which are its commands one by one.

geoloc geotag s3://bucket/photos/ s3://bucket/geotags --index s3://bucket/index
"""

import copy
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from geoloc import __version__
from geoloc.errors import SourceFailingError, StalledError, UsageError
from geoloc.options import parse

SOURCE_FAILING = 3
"""Exit status of a job that stopped because its source could not be read."""
STALLED = 4
"""Of one that stopped because nothing went on any more."""
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Command:
    """A job. What it imports is large, and is not imported to read its options."""

    description: str
    options: str
    """``module:class``."""
    function: str
    """``module:function``, which takes them and returns the exit status."""


COMMANDS = {
    "geotag": Command(
        "Tell where the photos of an archive were taken.",
        "geoloc.pipeline.job_options:ArchiveOptions",
        "geoloc.pipeline.archive:geotag_archive",
    ),
    "index": Command(
        "Make an index of geotagged photos.",
        "geoloc.pipeline.job_options:IndexOptions",
        "geoloc.pipeline.references:build_index",
    ),
    "calibrate": Command(
        "Fit confidences on photos whose places are known.",
        "geoloc.pipeline.job_options:CalibrationOptions",
        "geoloc.pipeline.calibration:calibrate",
    ),
    "evaluate": Command(
        "Judge predictions against the truth.",
        "geoloc.pipeline.job_options:EvaluationOptions",
        "geoloc.pipeline.evaluation:evaluate_runs",
    ),
    "together": Command(
        "Let the photos of a table, located by any system, locate each other.",
        "geoloc.pipeline.job_options:TogetherOptions",
        "geoloc.pipeline.together:locate_table",
    ),
    "status": Command(
        "Tell how far a run is.",
        "geoloc.pipeline.status:StatusOptions",
        "geoloc.pipeline.status:print_status",
    ),
    "export": Command(
        "Write a run's exports and report again.",
        "geoloc.pipeline.job_options:PublicationOptions",
        "geoloc.pipeline.publication:publish_again",
    ),
    "georanking": Command(
        "Make the set that a ranker is trained on.",
        "geoloc.pipeline.job_options:GeoRankingJobOptions",
        "geoloc.pipeline.georanking:build_georanking",
    ),
    "train-alignment": Command(
        "Learn G3's geo-alignment.",
        "geoloc.training.job_options:AlignmentOptions",
        "geoloc.training.alignment:train_alignment",
    ),
    "train-ranker": Command(
        "Fine-tune GeoRanker.",
        "geoloc.training.job_options:RankerJobOptions",
        "geoloc.training.ranker:train_ranker",
    ),
    "train-geocells": Command(
        "Learn cells of the Earth, as GeoSURGE, PlaNet and others do.",
        "geoloc.training.job_options:GeocellJobOptions",
        "geoloc.training.geocells:train_geocells",
    ),
    "train-light": Command(
        "Learn to put places in order by their evidence, in microseconds a photo.",
        "geoloc.pipeline.job_options:LightOptions",
        "geoloc.pipeline.light:train_light",
    ),
    "train-gate": Command(
        "Learn which photos a heavy ranker is worth its price for.",
        "geoloc.pipeline.job_options:GateOptions",
        "geoloc.pipeline.gate:train_gate",
    ),
    "serve": Command(
        "Answer for single photos over HTTP.",
        "geoloc.serving.service:ServiceOptions",
        "geoloc.serving.service:run_service",
    ),
    "keys": Command(
        "Make, list and revoke the API keys of a service.",
        "geoloc.serving.keys:KeyOptions",
        "geoloc.serving.keys:change_keys",
    ),
    "toy-planet": Command(
        "Write photos of a made-up planet.", "geoloc.toy.archive:ToyOptions", "geoloc.toy.archive:make_toy_planet"
    ),
}


def main() -> None:
    """Of the console script."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--version", "-V"):
        print(f"geoloc {__version__}")
    elif name in ("--help", "-h"):
        print("usage: geoloc COMMAND …\n\nTells where photographs were taken, for whole archives at a time.\n")
        for command, what in COMMANDS.items():
            print(f"  {command:<16} {what.description}")
        print("\nEach has its own --help.")
    elif name in COMMANDS:
        run_command(name, sys.argv[2:], f"geoloc {name}")
    else:
        print(f"error: {name}: there is {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)


def run_command(name: str, arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run one with arguments of the command line (default: this process's own), and exit with its status."""
    command = COMMANDS[name]
    run_job(lambda: _run(command, arguments, program))


def run_job(job: Callable[[], int]) -> None:
    """Run it and exit with its status; what the user can put right is one line, not a traceback."""
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger().handlers[0].setFormatter(_Escaping("%(message)s"))
    logging.getLogger("geoloc").setLevel(logging.INFO)
    try:
        status = job()
    except UsageError as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        status = 2
    except SourceFailingError as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        status = SOURCE_FAILING
    except StalledError as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        status = STALLED
    except BrokenPipeError:  # `--help | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        status = 130
    sys.exit(status)


def escaped(text: str) -> str:
    """What a terminal would obey, or show in another order than it stands, as it would be written in Python: names of files are
    whatever somebody called them."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


class _Escaping(logging.Formatter):
    """What is put into a message is one line of it, whatever it is called."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        if isinstance(record.args, tuple):
            record.args = tuple(
                value.replace("\n", "\\n") if isinstance(value, str) else value for value in record.args
            )
        return escaped(super().format(record))


def _run(command: Command, arguments: list[str] | None, program: str | None) -> int:
    options = parse(_named(command.options), command.description, arguments, program)
    return _named(command.function)(options)


def _named(path: str) -> Callable:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    main()
