"""Which ports a service has opened on this machine, and to whom: Ray opens more than were asked for."""

from collections import defaultdict

import psutil

from geoloc.serving.access import LOOPBACK

OWN = "the page and the API"
COPY = "a copy of the service, for HAProxy on this machine"
COUNTS = (
    "HAProxy's statistics and metrics: counts of requests, for anybody who reaches them; keep them behind a firewall"
)
DASHBOARD = "Ray's dashboard: runs code for whoever has Ray's token"
RAY = "Ray's own, of which not all ask for its token; keep them behind a firewall"


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
                found[_what(command, connection.laddr, port)].append(_address(connection.laddr))
    return [f"{', '.join(sorted(set(addresses)))}: {what}" for what, addresses in found.items()]


def _what(command: str, address, own: int) -> str:
    """By the command line of whoever listens: Ray's processes have ports of their own beside what they are there for."""
    here = address.ip in LOOPBACK
    if "haproxy" in command:
        return OWN if address.port == own else COUNTS
    if "ServeReplica" in command and here:
        return COPY
    return DASHBOARD if "dashboard/dashboard.py" in command and here else RAY


def _address(address) -> str:
    everywhere = address.ip in ("0.0.0.0", "::")
    host = "*" if everywhere else f"[{address.ip}]" if ":" in address.ip else address.ip
    return f"{host}:{address.port}"
