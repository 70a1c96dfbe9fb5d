"""What the service is set to: the arguments of ``serve run`` and of ``serve.yaml``."""

import dataclasses
from typing import Annotated

import tyro
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geoloc.errors import UsageError
from geoloc.recipes.options import RecipeOptions
from geoloc.recipes.reading import recipe_from_dict
from geoloc.recipes.recipe import Recipe
from geoloc.storage import S3Options

S3 = S3Options()
"""A service finds S3 the standard AWS way alone."""


class ModelOptions(RecipeOptions):
    """Which models answer. A service that runs takes up other ones without dropping a request (``serve deploy``)."""

    resolved: Annotated[dict | None, tyro.conf.Suppress] = None
    """The recipe itself, as plain data, in place of all that says which it is."""

    def read(self, s3: S3Options) -> Recipe:
        """Every photo is answered, with how sure that is: a recipe's ``min_confidence`` is for archives. Raises UsageError."""
        if self.min_confidence is not None:
            raise UsageError(f"min_confidence {self.min_confidence}: is for archives; the service answers every photo")
        recipe = super().read(s3) if self.resolved is None else recipe_from_dict(self.resolved, "resolved")
        if recipe.generation:
            raise UsageError(
                f"recipe {recipe.name}: asks a model for candidates, which the service does not; it is for archives"
            )
        return dataclasses.replace(recipe, min_confidence=None)


class DeploymentOptions(BaseModel):
    """What stays as it is while models change; other values start the service's copies anew."""

    model_config = ConfigDict(extra="forbid")

    keys: str | None = None
    """File of API keys, made with `geoloc keys FILE --make NAME` (default: GEOLOC_API_KEYS, or this machine alone)."""
    photos_a_minute: int = Field(120, ge=1)
    """Of each key; more are refused for a while (429)."""
    max_photo_mb: float = Field(20, gt=0)
    """Largest photo, MB (2^20 bytes)."""
    max_megapixels: float = Field(100, gt=0)
    """Largest photo, megapixels."""
    max_decode_seconds: float = Field(20, gt=0, le=86_400)
    """Processor time that decoding one may take."""
    max_batch: int = Field(16, ge=1)
    """Photos of one batch request."""
    max_waiting: int = Field(256, ge=1)
    """Photos that may wait in a copy of the service, at most half of them of one key; more are refused for a while (429)."""
    timeout_s: float = Field(60, gt=0)
    """For a request to arrive, and again for its answer."""
    s3_prefix: str | None = None
    """Photos below this s3://bucket/prefix may be named instead of sent."""
    batch_size: int = Field(16, ge=1)
    """Photos the models take at once."""
    replicas: int = Field(1, ge=1)
    """Copies of the service with the models that retrieve, and of the ranker, at most; as many as the load asks for."""
    gpus_each: float = Field(0, ge=0)
    """Of a copy; a fraction shares a GPU."""

    @model_validator(mode="after")
    def _places_for_a_batch(self) -> "DeploymentOptions":
        if self.max_waiting < 2 * self.max_batch:
            raise ValueError(
                f"max_waiting {self.max_waiting}: must be at least twice max_batch ({self.max_batch}), because one key gets half of "
                "the places"
            )
        return self


class ServingOptions(DeploymentOptions, ModelOptions):
    @property
    def models(self) -> ModelOptions:
        return ModelOptions(**self.model_dump(include=set(ModelOptions.model_fields)))

    @property
    def deployment(self) -> DeploymentOptions:
        return DeploymentOptions(**self.model_dump(include=set(DeploymentOptions.model_fields)))
