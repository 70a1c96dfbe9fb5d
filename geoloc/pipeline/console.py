"""How a job talks to the one who started it."""

import logging
import os
import sys
from collections.abc import Callable

from geoloc.errors import SourceFailingError, UsageError

SOURCE_FAILING = 3
"""Exit status of a job that stopped because its source could not be read."""


def run_job(job: Callable[[], int]) -> None:
    """Run it and exit with its status; what the user can put right is one line, not a traceback."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("geoloc").setLevel(logging.INFO)
    try:
        status = job()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except SourceFailingError as error:
        print(f"error: {error}", file=sys.stderr)
        status = SOURCE_FAILING
    except BrokenPipeError:  # `--help | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        status = 130
    sys.exit(status)
