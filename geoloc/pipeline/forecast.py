"""What a whole archive would take, from what some of its photos took."""

from dataclasses import dataclass
from datetime import timedelta

from geoloc.errors import UsageError

SAMPLE = 1_000
"""Photos that are located first, where none have been."""
_SHARING = {
    "fetching": ("fetch_s",),
    "decoding": ("decode_s",),
    "embedding and retrieval": ("embed_s", "retrieve_s"),
    "asking a model": ("generate_s",),
    "ranking": ("rank_s",),
}
"""Stages, and the seconds of theirs that the same workers spend."""


@dataclass(frozen=True)
class Prices:
    gpu_hour: float | None = None
    """Of a GPU with its share of a machine, an hour."""
    gets: float = 0.0004
    """Of a thousand GET requests."""
    egress_gb: float = 0.0
    """Of a GB (10^9 bytes) that leaves the store: nothing within its region."""

    def check(self) -> None:
        """Raises UsageError."""
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise UsageError(f"--prices.{name.replace('_', '-')} {value:g}: must not be below 0")


@dataclass(frozen=True)
class Forecast:
    photos: int
    """That are still to do."""
    photo_bytes: float
    """A photo, in the mean."""
    result_bytes: float
    """A row of the results."""
    work: dict
    """What some took (geoloc.pipeline.stages.Work)."""

    def rates(self) -> dict[str, float]:
        """Photos a second that each stage could do with the workers it had, were the others no hindrance."""
        seconds, workers, done = self.work["stage_seconds"], self.work["workers"], self.work["photos"]
        rates = {}
        for stage, names in _SHARING.items():
            spent = sum(seconds.get(name, 0.0) for name in names)
            if spent > 0 and workers.get(names[0]):
                rates[stage] = done / spent * workers[names[0]]
        return rates

    def lines(self, prices: Prices) -> list[str]:
        """For people."""
        rates, gpus = self.rates(), self.work["gpus"]
        if not rates:
            return ["What was looked at took no time that could be measured: none of it had to be read"]
        bound = min(rates, key=rates.get)
        hours = self.photos / rates[bound] / 3600
        lines = [
            f"{stage}: at most {rate:,.1f} photos/s{' (this bounds it)' if stage == bound else ''}"
            for stage, rate in rates.items()
        ]
        lines.append(
            f"{self.photos:,} photos to do: at least {timedelta(seconds=round(3600 * hours))} with these workers"
            f"{f', {gpus * hours:,.1f} GPU-hours' if gpus else ''}; {self.work['photos']:,} were looked at, "
            f"at {self.work['rate']:.1f} photos/s"
        )
        read, written = self.photos * self.photo_bytes / 1e9, self.photos * self.result_bytes / 1e9
        lines.append(f"{self.photos:,} GET requests for {read:,.1f} GB; {written:,.2f} GB of results")
        money = {"GET requests": self.photos / 1000 * prices.gets, "egress": read * prices.egress_gb}
        if gpus and prices.gpu_hour is not None:
            money["GPUs"] = gpus * hours * prices.gpu_hour
        parts = ", ".join(f"{what} {amount:,.2f}" for what, amount in money.items())
        return [*lines, f"Price at the given rates (--prices.*): {sum(money.values()):,.2f} ({parts})"]
