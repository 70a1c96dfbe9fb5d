"""What Prometheus is told of a job, through Ray's own exporters (cluster/grafana-geoloc.json draws it). Ray puts ``ray_`` before the
names, and tells of its queues and its actors itself (``ray_data_*``)."""

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge


class Metrics:
    """Of the driver, which hears of every part that is written."""

    def __init__(self, output: str, left: int) -> None:
        """``output``: names the run. ``left``: photos to do."""
        self._left, tags = left, {"output": output}
        self._photos = Counter("geoloc_photos", "Photos that are written.", ("output", "status"))
        self._seconds = Counter("geoloc_stage_seconds", "Seconds that workers spent.", ("output", "stage"))
        self._to_do = Gauge("geoloc_photos_left", "Photos that are still to do.", ("output",))
        for metric in (self._photos, self._seconds, self._to_do):
            metric.set_default_tags(tags)
        self._to_do.set(left)

    def add(self, statuses: Mapping[str, int], seconds: Mapping[str, float]) -> None:
        """A part's photos by status, and the seconds they took by stage (``fetch_s`` and the like)."""
        for status, count in statuses.items():
            self._photos.inc(count, {"status": status})
        for stage, spent in seconds.items():
            if spent > 0:
                self._seconds.inc(spent, {"stage": stage.removesuffix("_s")})
        self.set_left(self._left - sum(statuses.values()))

    def set_left(self, photos: int) -> None:
        """As found by looking: of some that were written nothing was heard."""
        self._left = photos
        self._to_do.set(photos)


def count_fetched(size: int) -> None:
    """Bytes, in a loading task."""
    if size:
        Counter("geoloc_fetched_bytes", "Bytes of photos that loading tasks went through.").inc(size)
