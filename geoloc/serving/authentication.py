"""Whether a request may be answered: by its key, or, without keys, because it comes from this machine."""

from fastapi import Request

from geoloc.serving.access import LOOPBACK, Keys, is_cross_site
from geoloc.serving.listener import check_clients_can_be_told_apart
from geoloc.serving.problems import ProblemError


class Authentication:
    def __init__(self, keys: str | None) -> None:
        """``keys`` is their file. Raises UsageError."""
        self._keys = Keys(keys)
        if not self._keys:
            check_clients_can_be_told_apart()

    def client(self, request: Request) -> str:
        """Who asks: the name of a key, or this machine's address. Raises ProblemError for one who may not."""
        return self._owner(request) if self._keys else _local_client(request)

    def _owner(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self._keys.owner(key.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise ProblemError(401, "No valid key", "send the header Authorization: Bearer KEY")
        return owner


def _local_client(request: Request) -> str:
    if is_cross_site(request.headers):
        raise ProblemError(403, "Only for this machine", "a page of another site may not ask a service without keys")
    client = request.client.host if request.client else "unknown"
    if client not in LOOPBACK or _host(request) not in LOOPBACK:  # a page elsewhere may give its own name this address
        raise ProblemError(403, "Only for this machine", "the service has no keys, so it answers nobody else's machine")
    return client


def _host(request: Request) -> str:
    """Of the header, without its port."""
    host = request.headers.get("host", "")
    return host if host.endswith("]") else host.rpartition(":")[0] or host
