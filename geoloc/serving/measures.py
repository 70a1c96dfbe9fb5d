"""What Prometheus is told of, beside Ray Serve's own measures."""

import functools

from ray.util.metrics import Counter, Gauge, Histogram


class Measures:
    def __init__(self) -> None:
        self.seconds = Histogram(
            "geoloc_seconds",
            "Of a photo, by stage: decode, embed, retrieve, rank, and total, which is these and what it waited",
            boundaries=[0.01, 0.03, 0.1, 0.3, 1, 3, 10],
            tag_keys=("stage",),
        )
        self.batch = Histogram(
            "geoloc_batch", "Photos that models took at once", boundaries=[1, 2, 4, 8, 16, 32, 64], tag_keys=("stage",)
        )
        self.waiting = Gauge("geoloc_waiting", "Photos that have come and are not answered yet")
        self.refused = Counter("geoloc_refused", "Requests and photos, by HTTP status", tag_keys=("status",))


@functools.cache
def measures() -> Measures:
    """Of this process."""
    return Measures()
