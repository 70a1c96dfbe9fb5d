"""What the service is set to: the arguments of ``serve run`` and of ``serve.yaml``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from geoloc.schema import MAX_CANDIDATES


class ModelOptions(BaseModel):
    """Which models answer. A service that runs takes up other ones without dropping a request (``serve deploy``)."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    preset: str = "geoclip"
    """Models: geoclip, lite, or a folder from train_alignment.py."""
    model: str | None = None
    """Another image tower for the preset."""
    index: str | None = None
    """Index folder from build_index.py (default: the preset's own gallery of coordinates, where it has one)."""
    candidates: int = Field(20, ge=1, le=MAX_CANDIDATES)
    """Places retrieved for a photo."""
    chooser: Literal["top1", "density", "verification"] = "top1"
    """How one of them is chosen: the most similar, the densest, or the best match in location space."""
    density_sigma_km: float = Field(445, gt=0)
    """Width of the density chooser's kernel, km."""
    parts: str | None = None
    """Of an alignment's vectors, the parts to search by, joined by + (default: all three)."""
    calibration: str | None = None
    """calibration.json from calibrate.py, or the folder with it."""
    ranker_model: str | None = None
    """Base model of the ranker, a folder or hub name: with it and the adapter, a vision-language model ranks the places."""
    ranker_adapter: str | None = None
    """The ranker's adapter from train_ranker.py."""
    ranker_candidates: int | None = None
    """Places to rank, of those retrieved (default: all but the prompt's negatives)."""
    ranker_max_pixels: int | None = None
    """Pixels the ranker sees of a picture (default: as its adapter learned)."""
    skip_ranking_within_km: float | None = None
    """Do not rank where the five most similar places lie as close together, km."""


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
