"""Where Ray Serve listens. It tells nobody but its own client, and that only by a private function: kept to this module."""

import os

from ray.serve.context import _get_global_client

from geoloc.errors import UsageError
from geoloc.serving.access import LOOPBACK


def http_address() -> tuple[str, int]:
    """Host and port of this cluster's Ray Serve."""
    config = _get_global_client().http_config
    return config.host, config.port


def check_clients_can_be_told_apart() -> None:
    """Of a service without keys, which is for this machine alone. Raises UsageError: HAProxy gives every client this machine's
    address, so that it must listen to this machine alone."""
    host, _ = http_address()
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1" and host not in LOOPBACK:
        raise UsageError(
            f"HAProxy listens on {host}: without keys the service is for this machine alone (http_options.host)"
        )
