"""How a job talks to the one who started it."""

import logging
import sys
from collections.abc import Callable

from geoloc.errors import UsageError


def run_job(job: Callable[[], int]) -> None:
    """Run it and exit with its status; what the user can put right is one line, not a traceback."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("geoloc").setLevel(logging.INFO)
    try:
        status = job()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        status = 130
    sys.exit(status)
