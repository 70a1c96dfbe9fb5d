"""When an answer is better held back."""

import re
from dataclasses import dataclass

from geoloc.errors import UsageError
from geoloc.geo.distance import THRESHOLDS_KM


@dataclass(frozen=True)
class Abstention:
    """Photos whose error is not below ``threshold_km`` with probability ``probability`` are ``uncertain``."""

    threshold_km: int
    probability: float

    @classmethod
    def parse(cls, text: str) -> "Abstention":
        """Of ``25km:0.5``. Raises UsageError."""
        found = re.fullmatch(r"(\d+) ?km:(\d*\.?\d+)", text.strip())
        if not found or int(found[1]) not in THRESHOLDS_KM or not 0 < float(found[2]) <= 1:
            known = ", ".join(f"{threshold}km" for threshold in THRESHOLDS_KM)
            raise UsageError(
                f"--min-confidence {text}: is not THRESHOLD:PROBABILITY, such as 25km:0.5, with one of {known}"
            )
        return cls(int(found[1]), float(found[2]))
