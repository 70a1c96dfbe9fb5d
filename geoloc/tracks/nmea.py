"""NMEA 0183, as loggers write it: a point is an RMC sentence, which alone has a date."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pynmea2


def read_nmea(data: bytes) -> Iterator[tuple[datetime | None, float, float]]:
    """Lines that are broken, and points that the receiver calls invalid, are passed over. Raises ValueError where no sentence is there."""
    sentences = 0
    for line in data.decode("ascii", "replace").splitlines():
        start = line.find("$")
        if start < 0:
            continue
        try:
            sentence = pynmea2.parse(line[start:].strip(), check=True)
            sentences += 1
            if sentence.sentence_type == "RMC" and sentence.status == "A" and sentence.lat_dir and sentence.lon_dir:
                at = datetime.combine(sentence.datestamp, sentence.timestamp)
                yield at.replace(tzinfo=UTC), sentence.latitude, sentence.longitude
        except (pynmea2.ParseError, ValueError, TypeError, AttributeError):
            continue
    if not sentences:
        raise ValueError("has no sentence of NMEA 0183")
