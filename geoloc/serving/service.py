"""The service on its own: Ray Serve started here, until it is told to stop."""

import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from geoloc.errors import UsageError
from geoloc.help import Group
from geoloc.serving.access import LOOPBACK, read_keys
from geoloc.serving.options import ServingOptions
from geoloc.serving.ports import listening

log = logging.getLogger("geoloc")

SERVICE = (
    *(
        "recipe",
        "index",
        "encoder",
        "model",
        "ranker_model",
        "ranker_adapter",
        "calibration",
        "keys",
        "photos_a_minute",
    ),
    *("s3_prefix", "replicas", "gpus_each"),
)
"""What most services need of these options."""


@dataclass(frozen=True)
class ServiceOptions:
    host: str = "127.0.0.1"
    """Address to listen on; another than this machine's own needs --keys."""
    port: int = 8000
    """Port to listen on."""
    service: Annotated[ServingOptions, tyro.conf.OmitArgPrefixes, Group("service", SERVICE)] = field(
        default_factory=ServingOptions
    )


def run_service(options: ServiceOptions) -> int:
    """Until SIGINT or SIGTERM; what has been asked by then is answered. Raises UsageError."""
    if not read_keys(options.service.keys) and options.host not in LOOPBACK:
        raise UsageError(f"--host {options.host}: without --keys the service is for this machine alone")
    with tempfile.TemporaryDirectory(prefix="geoloc-serve-") as folder:
        put_haproxy_in_front(folder)
        _serve(options)
    return 0


def put_haproxy_in_front(folder: str) -> None:
    """Of the cluster that is started after this: a request costs it a fifth of what it costs Ray Serve's own proxy.

    ``folder`` is for its files. The environment's own word on any of this stands.
    """
    if sys.platform != "linux":
        return
    settings = {
        "ENABLE_HA_PROXY": "1",
        "HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "HAPROXY_SERVER_STATE_BASE": folder,
        "HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "HAPROXY_METRICS_PORT": str(_free_port(9101)),
        "HAPROXY_STATS_PORT": str(_free_port(8404)),
        "HAPROXY_TIMEOUT_CLIENT_S": "60",  # of silence
        "DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    for name, value in settings.items():
        os.environ.setdefault(f"RAY_SERVE_{name}", value)


def _check_address(options: ServiceOptions) -> None:
    """Raises UsageError where Ray Serve runs on this cluster already, and listens elsewhere."""
    from geoloc.serving.listener import http_address

    host, port = http_address()
    if (host, port) != (options.host, options.port):
        raise UsageError(
            f"--host {options.host} --port {options.port}: this cluster's Ray Serve listens on {host}:{port}; "
            "name that address, or use serve deploy"
        )


def _with_reason(error: RuntimeError) -> Exception:
    """Of models that cannot be loaded, what the user can put right."""
    from ray import serve

    deployments = serve.status().applications["geoloc"].deployments.values()
    said = "\n".join(deployment.message for deployment in deployments)
    found = re.findall(rf"{UsageError.__name__}: (.+?)(?: >>)?$", said, re.MULTILINE)
    return UsageError(found[-1]) if found else error


def _free_port(preferred: int) -> int:
    """That one, unless somebody has it."""
    for port in (preferred, 0):
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
            return tried.getsockname()[1]
    raise UsageError("no port is free on this machine")


def _serve(options: ServiceOptions) -> None:
    from ray import serve

    from geoloc.pipeline.cluster import connect
    from geoloc.serving.app import build

    app = build(options.service)
    connect()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(http_options={"host": options.host, "port": options.port, "request_timeout_s": None})
    _check_address(options)
    log.info("Loading the models")
    try:
        serve.run(app, name="geoloc")
    except RuntimeError as error:
        raise _with_reason(error) from error
    keys = "with API keys" if read_keys(options.service.keys) else "for this machine alone, because it has no --keys"
    log.info("http://%s:%s, %s", options.host, options.port, keys)
    if opened := listening(options.port):
        log.info("Listening on this machine:")
        for line in opened:
            log.info("  %s", line)
    stop.wait()
    log.info("Stopping; what has been asked is still answered")
    serve.delete("geoloc")
