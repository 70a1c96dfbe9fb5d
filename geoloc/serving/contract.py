"""What requests and answers look like, as OpenAPI tells it."""

import copy
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel

from geoloc.schema import MAX_CANDIDATES
from geoloc.serving.answers import Answer
from geoloc.serving.problems import MEDIA_TYPE


class BatchItem(BaseModel):
    answer: Answer | None = None
    problem: dict | None = None
    """Why there is no answer, as RFC 9457 has it."""


class BatchAnswer(BaseModel):
    answers: list[BatchItem]


Candidates = Annotated[int, Query(ge=0, le=MAX_CANDIDATES, description="How many candidates to tell, best first.")]
Rank = Annotated[bool, Query(description="Have the ranker put the candidates in order, where there is one.")]
GeoJson = Annotated[bool, Query(alias="map", description="Add GeoJSON of the estimate, its circle and the candidates.")]

BATCH = "/v1/geolocate/batch"

_BINARY = {"type": "string", "format": "binary"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail", "kind")}
    | {"status": {"type": "integer"}},
    "example": {
        "type": "about:blank",
        "title": "The photo cannot be used",
        "status": 422,
        "detail": "truncated: the file ends before the picture does",
        "kind": "truncated",
    },
}
PROBLEMS: dict = {
    status: {"description": description, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
    for status, description in {
        400: "The request cannot be read",
        401: "No key, or a wrong one",
        403: "Not allowed",
        404: "There is no such thing",
        408: "The request took too long to arrive",
        413: "Too large",
        415: "No photo in a form that is understood",
        422: "The photo, or an option, cannot be used",
        429: "Too many requests; Retry-After says when to come again",
        503: "The models are starting",
        504: "The answer took too long",
    }.items()
}
PICTURE = PROBLEMS | {200: {"content": {"image/jpeg": {"schema": _BINARY}}}}

_GREY = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAEElEQVR42mNsYIAAJgaKGAAmCACQtTEKkQAAAABJRU5ErkJggg=="


def _object(**properties: dict) -> dict:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _body(content: dict) -> dict:
    return {"requestBody": {"required": True, "content": content}}


PHOTO = _body(
    {
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {"schema": _object(photo=_BINARY)},
        "application/json": {
            "schema": {
                "oneOf": [
                    _object(image={"type": "string", "contentEncoding": "base64"}),
                    _object(
                        uri={"type": "string", "pattern": "^s3://", "description": "Below what the service allows."}
                    ),
                ]
            },
            "examples": {
                "in base64": {"value": {"image": _GREY}},
                "in S3": {"value": {"uri": "s3://bucket/photos/1.jpg"}},
            },
        },
    }
)
PHOTOS = _body({"multipart/form-data": {"schema": _object(photo={"type": "array", "items": _BINARY, "minItems": 1})}})


def with_limits(openapi: dict, max_batch: int) -> dict:
    """What OpenAPI says of every service, and how many photos this one takes at once."""
    limited = copy.deepcopy(openapi)
    body = limited["paths"][BATCH]["post"]["requestBody"]["content"]["multipart/form-data"]
    body["schema"]["properties"]["photo"]["maxItems"] = max_batch
    return limited
