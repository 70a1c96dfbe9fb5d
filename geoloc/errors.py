"""The two ways something can be wrong: the user asked for what cannot be done, or one photo cannot be used."""


class UsageError(Exception):
    """Something the user can put right. The message names the option and the value, and says what to do."""


class PhotoError(Exception):
    """One photo cannot be used. It becomes a row with ``status="failed"`` and never stops a run.

    Kinds from fetching: ``empty``, ``too_large``, ``not_found``, ``forbidden``, ``changed``, ``network``.
    Kinds from decoding: ``not_an_image``, ``truncated``, ``corrupt``, ``too_many_pixels``,
    ``crashed``. Kind from building an index: ``no_position``.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = " ".join(message.split())[:300]

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"
