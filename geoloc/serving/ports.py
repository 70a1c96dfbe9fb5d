"""Which ports a service has opened on this machine, and to whom: Ray opens more than were asked for."""

import re
from collections import defaultdict

import psutil

_KINDS = (
    (r"haproxy", None),
    (r"ServeReplica", "a copy of the service, behind HAProxy: asks for what HAProxy's port asks for"),
    (r"dashboard\.py|dashboard/dashboard", "Ray's dashboard: runs code for whoever has Ray's token"),
    (r"gcs_server|raylet|ray::|agent|monitor|default_worker|log_monitor", "Ray's own: asks for Ray's token"),
)
"""By the command line of whoever listens."""


def listening(port: int) -> list[str]:
    """A line for each port of this process's children and of what they started, ``port`` being the service's own."""
    found: dict[str, list[str]] = defaultdict(list)
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            connections = process.net_connections("tcp")
        except psutil.Error:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found[_what(command, connection.laddr.port, port)].append(_address(connection.laddr))
    return [f"{', '.join(sorted(set(addresses)))}: {what}" for what, addresses in found.items()]


def _what(command: str, number: int, own: int) -> str:
    kind = next(((pattern, what) for pattern, what in _KINDS if re.search(pattern, command)), (None, "unknown"))
    if kind[0] != "haproxy":
        return kind[1]
    if number == own:
        return "the page and the API"
    return (
        "HAProxy's statistics or metrics: counts of requests, for anybody who reaches them; keep them behind a firewall"
    )


def _address(address) -> str:
    everywhere = address.ip in ("0.0.0.0", "::")
    host = "*" if everywhere else f"[{address.ip}]" if ":" in address.ip else address.ip
    return f"{host}:{address.port}"
