"""Options that jobs share. Reading them needs no Ray."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from geoloc.errors import CLASSES, UsageError
from geoloc.help import Group
from geoloc.photos.examine import DecodeOptions
from geoloc.photos.fetch import FetchOptions
from geoloc.photos.load import LoadOptions
from geoloc.photos.selection import ListingOptions
from geoloc.photos.views import View
from geoloc.ranking.choosers import Density, Light
from geoloc.recipes.options import RankerOverrides, vary
from geoloc.recipes.reading import read_recipe
from geoloc.recipes.recipe import Recipe
from geoloc.results.options import ExportOptions
from geoloc.storage import S3Options

DAY_S = 86_400

Listing = Annotated[
    ListingOptions, tyro.conf.OmitArgPrefixes, Group("input", ("include", "exclude", "limit", "sample"))
]


@dataclass(frozen=True)
class PhotoOptions:
    max_photo_mb: float = 64
    """Largest file that is fetched, MB (2^20 bytes); a larger one fails as too_large."""
    max_megapixels: float = 200
    """Largest picture that is decoded, millions of pixels; a larger one fails as too_many_pixels."""
    max_decode_seconds: float = 60
    """Processor time that decoding one may take; a photo that takes longer fails as too_slow."""
    exact_decode: bool = False
    """Decode photos whole before they are scaled, as the published codes do: a JPEG more than three times as large as what a
    model looks at is otherwise decoded at a smaller scale, which is several times faster."""
    fetch_concurrency: int = 32
    """Requests under way at once, a loading task."""

    retry: tuple[str, ...] = ("access", "passing")
    """Failures of earlier runs to try again: kinds such as truncated, classes (access: forbidden, kms, not_found,
    archived; passing: network, throttled, changed, crashed, endpoint; permanent: the rest), or none."""
    max_failing_share: float = 0.5
    """Stop where more than this share of the last thousand photos cannot be had (access, network); 1 never stops."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in ("max_photo_mb", "max_megapixels", "max_decode_seconds", "fetch_concurrency", "max_failing_share"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0")
        if self.max_decode_seconds > DAY_S:
            raise UsageError(f"--max-decode-seconds {self.max_decode_seconds:g}: must be at most {DAY_S}")
        self.retry_kinds()

    def retry_kinds(self) -> set[str]:
        """Raises UsageError."""
        kinds = {kind for name in CLASSES for kind in CLASSES[name]}
        known = CLASSES | {kind: (kind,) for kind in kinds} | {"none": ()}
        for name in self.retry:
            if name not in known:
                raise UsageError(f"--retry {name}: there is {', '.join([*CLASSES, 'none', *sorted(kinds)])}")
        return {kind for name in self.retry for kind in known[name]}

    def load_options(self, view: View, s3: S3Options, **others: object) -> LoadOptions:
        fetch = FetchOptions(int(self.max_photo_mb * 2**20), self.fetch_concurrency, s3=s3)
        pixels = int(self.max_megapixels * 1e6)
        return LoadOptions(DecodeOptions(view, pixels, self.max_decode_seconds, self.exact_decode, **others), fetch)


@dataclass(frozen=True)
class ClusterOptions:
    gpus: int | None = None
    """GPUs to use in all (default: those the cluster has; 0: run the models on CPUs)."""
    min_gpus: int | None = None
    """GPUs to start with where --gpus have not come in --wait-minutes (default: all of --gpus); those that come later are taken
    up (--adapt-minutes)."""
    gpus_per_actor: int = 1
    """GPUs that share one copy of the index, where it does not fit on one."""
    cpus_per_gpu: float = 1
    """CPUs that are kept for the actors of a GPU, beside those that load photos; at most half of a node's."""
    label_selector: tuple[str, ...] = ()
    """Nodes that models may be on, by Ray's labels: KEY=VALUE, KEY=!VALUE or KEY=in(A,B), such as
    ray.io/accelerator-type=H100 or ray.io/market-type=!spot (default: all)."""
    batch_size: int | None = None
    """Photos the models take at once (default: 256 on a GPU, 16 a CPU core)."""
    wait_minutes: float = 0
    """How long to wait for the cluster to grow as planned (without --gpus, for any GPU), and for another run to leave OUTPUT, minutes."""
    adapt_minutes: float = 3
    """How long nodes have to be lost, or others be there, before the models are laid out anew over those that there are, minutes
    (0: never). Those that Ray can restart where they were go on by themselves."""
    lanes: int | None = None
    """Processes, on any node, that hand out photos side by side; each moves some ten thousand a second (default: one for every 4 GPUs
    and every million photos). No more than the stage of fewest actors has."""
    stall_minutes: float = 30
    """Stop, with exit status 4, where no stage has begun or ended anything for so long, minutes (0: never)."""


Photos = Annotated[PhotoOptions, tyro.conf.OmitArgPrefixes, Group("input", ("retry",))]
Cluster = Annotated[ClusterOptions, tyro.conf.OmitArgPrefixes, Group("cluster", ("gpus", "wait_minutes"))]
Exports = Annotated[ExportOptions, tyro.conf.OmitArgPrefixes, Group("output", ("export", "export_max_radius_km"))]
LOCATED_HERE = "photos located here"
OVERRIDES = ("index", "encoder", "model", "ranker_model", "ranker_adapter")


@dataclass(frozen=True)
class LocateOptions:
    images: str | None = None
    """Where the truth's photos are (s3:// prefix, folder, or table with a column `uri`): locate them by every recipe, in every
    combination of --choosers, --candidates and --parts, and judge those answers too."""
    recipes: tuple[str, ...] = ("geoclip",)
    """Ways of locating them: names, .yaml files, run.json of runs, or package.module:function, as geotag_archive.py's --recipe."""
    overrides: Annotated[RankerOverrides, tyro.conf.OmitArgPrefixes, Group(LOCATED_HERE, OVERRIDES)] = field(
        default_factory=RankerOverrides
    )
    choosers: tuple[str, ...] = ()
    """Ways of choosing to compare: top1, density, verification (default: each recipe's own)."""
    candidates: tuple[int, ...] = ()
    """Numbers of places retrieved, to compare (default: each recipe's own)."""
    parts: tuple[str, ...] = ()
    """Parts of an aligned vector to compare, joined by +, such as image image+location image+text+location (default: each
    recipe's own)."""
    density_sigma_km: float | None = None
    """Width of the density chooser's kernel, km (default: 445)."""
    light_ranker: str | None = None
    """Folder from train_light.py, for the recipe light and --choosers light."""
    ten_crop: bool = False
    """Average similarities over ten crops of every photo (five, and their mirror images), as papers do."""
    photos: Photos = field(default_factory=lambda: PhotoOptions(exact_decode=True))
    cluster: Cluster = field(default_factory=ClusterOptions)

    def check(self, s3: S3Options) -> list[Recipe]:
        """The recipes in every combination, each with a name of its own. Raises UsageError for what can be told without looking at
        any photo."""
        self.photos.check()
        if not self.recipes:
            raise UsageError("--recipes: names none")
        found = []
        for name in self.recipes:
            base = self.overrides.change(read_recipe(name, s3))
            if self.ten_crop:  # another vector than a calibration was made with
                base = dataclasses.replace(base, calibration=None, min_confidence=None)
            found += vary(base, self.choosers, self.candidates, self.parts, self.density_sigma_km, self.light_ranker)
        if len(self.recipes) == 1 and len(found) > 1:
            found = [dataclasses.replace(r, name=r.name.removeprefix(f"{base.name}: ")) for r in found]
        if self.density_sigma_km is not None and not any(isinstance(recipe.chooser, Density) for recipe in found):
            raise UsageError(
                f"--density-sigma-km {self.density_sigma_km:g}: is about the chooser density; add --choosers density"
            )
        if self.light_ranker is not None and not any(isinstance(recipe.chooser, Light) for recipe in found):
            raise UsageError(f"--light-ranker {self.light_ranker}: is about the chooser light; add --choosers light")
        for recipe in found:
            if recipe.generation:
                raise UsageError(
                    f"--recipes {recipe.name}: asks a model for candidates, which this job does not; locate the photos by it with "
                    "geotag_archive.py --relocate, and give that run's folder as predictions"
                )
            recipe.check(s3)
            if [other.name for other in found].count(recipe.name) > 1:
                raise UsageError(f"--recipes: two of them are called {recipe.name}; give them other names")
        return found
