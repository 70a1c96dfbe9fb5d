"""The service on its own: Ray Serve started here, until it is told to stop."""

import logging
import signal
import threading
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from geoloc.errors import UsageError
from geoloc.serving.access import read_keys
from geoloc.serving.options import ServingOptions

log = logging.getLogger("geoloc")

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServiceOptions:
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs --keys."""
    port: int = 8000
    service: Annotated[ServingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ServingOptions)


def run_service(options: ServiceOptions) -> int:
    """Until SIGINT or SIGTERM; what has been asked by then is answered. Raises UsageError."""
    if not read_keys(options.service.keys) and options.host not in LOOPBACK:
        raise UsageError(f"--host {options.host}: without --keys the service is for this machine alone")
    from ray import serve

    from geoloc.pipeline.cluster import connect
    from geoloc.serving.app import build

    connect()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": options.host, "port": options.port, "request_timeout_s": None})
    serve.run(build(options.service), name="geoloc")
    keys = "with API keys" if read_keys(options.service.keys) else "for this machine alone, because it has no --keys"
    log.info("http://%s:%s, %s", options.host, options.port, keys)
    stop.wait()
    log.info("Stopping")
    serve.shutdown()
    return 0
