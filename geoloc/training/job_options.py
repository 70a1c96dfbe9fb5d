"""Options of the training jobs, likewise (geoloc.pipeline.job_options)."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from geoloc.geocells.methods import GeocellChoices
from geoloc.help import Group
from geoloc.photos.selection import ListingOptions
from geoloc.pipeline.options import Cluster, ClusterOptions, Listing, PhotoOptions, Photos
from geoloc.ranking.options import PromptOptions
from geoloc.storage import S3Options
from geoloc.training.options import GeocellTrainingOptions, RankerTrainingOptions, TrainingOptions

ALIGNMENT = ("epochs", "batch_size", "lr", "workers", "checkpoint_steps", "seed")
RANKER = (
    *("epochs", "photos_a_step", "lr", "lora_rank", "zero", "offload", "checkpointing", "validation_photos", "workers"),
    *("checkpoint_steps", "seed"),
)
GEOCELLS = ("epochs", "batch_size", "lr", "patience", "validation_share", "workers", "checkpoint_steps", "seed")
PROMPT = ("template", "negatives", "max_pixels")
"""What most trainings need of these options."""


@dataclass(frozen=True)
class AlignmentOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Geotagged photos: s3://bucket/prefix or a local folder (EXIF GPS), or a .csv/.parquet file with columns uri, lat, lon
    [, city, region, country]. Names that are not given are those of the nearest place."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the run and of the trained alignment, s3:// or local. The same command goes on where it was."""
    encoder: str = "geoclip"
    """Models to start from: geoclip (CLIP ViT-L/14, as G3) or lite."""
    model: str | None = None
    """Another image tower for the encoder: an open_clip name@weights, hf-hub:…, or local-dir:/folder."""
    from_checkpoint: bool = False
    """Nothing is trained: SOURCE is G3's released checkpoint (g3.pth, local), and OUTPUT gets the alignment that is in it."""
    features: str | None = None
    """OUTPUT of another run on the same SOURCE and models, to train on its features, with other settings."""
    training: Annotated[TrainingOptions, tyro.conf.OmitArgPrefixes, Group("training", ALIGNMENT)] = field(
        default_factory=TrainingOptions
    )
    listing: Listing = field(default_factory=ListingOptions)
    photos: Photos = field(default_factory=PhotoOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class GeocellJobOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Index of geotagged photos from build_index.py, s3:// or local: their vectors and places are learned from."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the trained cells, s3:// or local, which the other jobs take as --index. The same command goes on where it was."""
    cells: Annotated[GeocellChoices, tyro.conf.OmitArgPrefixes, Group("method", ("method", "most", "fewest"))] = field(
        default_factory=GeocellChoices
    )
    training: Annotated[GeocellTrainingOptions, tyro.conf.OmitArgPrefixes, Group("training", GEOCELLS)] = field(
        default_factory=GeocellTrainingOptions
    )
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    s3: S3Options = field(default_factory=S3Options)


@dataclass(frozen=True)
class RankerJobOptions:
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Training set from build_georanking.py, s3:// or local."""
    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """Folder of the trained adapter, s3:// or local. The same command goes on where it was."""
    model: str = "Qwen/Qwen2-VL-7B-Instruct"
    """Base model: a Qwen2-VL folder that every node has, or its name on the model hub."""
    validation: str | None = None
    """Another set from build_georanking.py, whose photos the ranker is tried on while it learns (default: photos of SOURCE,
    which are left out of the training)."""
    training: Annotated[RankerTrainingOptions, tyro.conf.OmitArgPrefixes, Group("training", RANKER)] = field(
        default_factory=RankerTrainingOptions
    )
    prompt: Annotated[PromptOptions, tyro.conf.OmitArgPrefixes, Group("prompt", PROMPT)] = field(
        default_factory=PromptOptions
    )
    cluster: Cluster = field(default_factory=ClusterOptions)
    s3: S3Options = field(default_factory=S3Options)
