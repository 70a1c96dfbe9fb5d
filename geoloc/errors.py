"""The two ways something can be wrong: the user asked for what cannot be done, or one photo cannot be used."""


class UsageError(Exception):
    """Something the user can put right. The message names the option and the value, and says what to do."""


PERMANENT = (
    "empty",
    "too_large",
    "not_an_image",
    "truncated",
    "corrupt",
    "too_many_pixels",
    "too_many_scans",
    "too_slow",
    "too_much_memory",
    "too_narrow",
    "no_position",
)
PERMANENT += ("no_candidates", "no_picture", "not_a_number", "too_long", "refused", "unread")
ACCESS = ("forbidden", "kms", "not_found", "archived")
PASSING = ("network", "throttled", "changed", "crashed", "endpoint")
CLASSES = {"permanent": PERMANENT, "access": ACCESS, "passing": PASSING}
"""Of the kinds of failure: the bytes are bad; whoever runs the job, or restores the object, can put it right; it may not
happen again."""


class SourceFailingError(Exception):
    """So many photos could not be had that going on makes no sense."""


class StalledError(Exception):
    """No part of a run does anything any more."""


class PhotoError(Exception):
    """One photo cannot be used. It becomes a row with ``status="failed"`` and never stops a run.

    Kinds from fetching: ``empty``, ``too_large``, and those of ACCESS and PASSING but ``crashed``.
    Kinds from decoding: ``not_an_image``, ``truncated``, ``corrupt``, ``too_many_pixels``,
    ``too_many_scans``, ``too_slow``, ``too_much_memory``, ``too_narrow``, ``crashed``. Kind from building an index: ``no_position``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = " ".join(message.split())[:300]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def columns(self) -> dict:
        """Of the photo's row."""
        return {"status": "failed", "error_kind": self.kind, "error": self.message}


def reason_of(error: BaseException) -> BaseException:
    """What the user is to be told of a task's failure on the cluster, where the task said so; else the error itself."""
    seen = error
    while seen is not None:
        if isinstance(seen, (UsageError, SourceFailingError)):
            kind = UsageError if isinstance(seen, UsageError) else SourceFailingError
            message = str(getattr(seen, "cause", seen))
            return kind(message.split("\n", 1)[0])  # Ray Data adds advice of its own
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
