"""Times as logs write them: ISO 8601 with a zone, or milliseconds since 1970."""

from datetime import UTC, datetime


def read_stamp(value: object) -> datetime | None:
    """None where it is no time, or one without a zone, whose moment nobody knows.

    >>> read_stamp("2019-07-04T15:30:01.250+02:00"), read_stamp("1562247001250")
    (datetime.datetime(2019, 7, 4, 13, 30, 1, 250000, tzinfo=datetime.timezone.utc), datetime.datetime(2019, 7, 4, 13, 30, 1, 250000, tzinfo=datetime.timezone.utc))
    """
    text = str(value or "").strip()
    try:
        if text.lstrip("-").isdigit() and len(text) > 8:  # a year alone is no time
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None
