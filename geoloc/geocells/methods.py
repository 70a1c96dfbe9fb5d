"""Which cells, which loss and which inference the papers' systems have, as data. Without torch."""

import itertools
from dataclasses import dataclass, replace
from typing import Literal

from geoloc.errors import UsageError
from geoloc.geo.partition import GEOSURGE

Head = Literal["embeddings", "classifier"]
Negatives = Literal["batch", "batch-masked", "all-cells"]
Method = Literal["geosurge", "planet", "isns", "cplanet", "pigeon"]
Combine = Literal["product", "literal", "sum", "finest"]


@dataclass(frozen=True)
class GeocellOptions:
    """What is learned, and how a place is read from it. The defaults are GeoSURGE's (§III, §IV)."""

    most: tuple[int, ...] = GEOSURGE
    """Photos of a cell at most, of each partition, coarsest first."""
    fewest: int = 50
    """A cell has more photos than this, or is left out. GeoSURGE's text has "fewer than 50 are excluded", the partitions that are
    published have more than 50."""
    start_level: int = 2
    """S2 level at which dividing begins: 0, the six faces, in GeoSURGE's text; 2 in the published partitions."""
    turned: bool = False
    """Each partition divides the globe turned otherwise, so that their cells cross each other (CPlaNet): the places told apart are
    the intersections that hold photos. Else each cell lies in one of the coarser partitions'."""
    head: Head = "embeddings"
    """``embeddings``: a learned vector for each cell, compared by cosine with the photo's, and a learned temperature for each
    partition. ``classifier``: a linear layer (PlaNet)."""
    negatives: Negatives = "batch-masked"
    """What a photo's cell is told from, of ``embeddings``: the cells of the batch's other photos (``batch``: as the paper says, in
    which photos of one cell are each other's negatives; ``batch-masked``: without those of the same cell), or ``all-cells``."""
    smoothing_km: float = 0
    """Cells near a photo count as right too, by exp(-excess/this), excess being how much farther than the nearest they are (PIGEON:
    75; PIGEOTTO: 65). 0: its own cell alone."""
    combine: Combine = "product"
    """How a finest cell's score comes from those of the cells it is in: ``product`` of the partitions' softmaxes, ``sum`` of them
    (CPlaNet), ``literal`` product of cosines, where negative ones count as 0 (GeoSURGE's text), or the ``finest`` alone."""
    width: int = 768
    """Of the embeddings."""

    def check(self) -> None:
        """Raises UsageError."""
        if not self.most or any(few >= many for many, few in itertools.pairwise(self.most)):
            raise UsageError(
                f"--most {' '.join(map(str, self.most))}: must be numbers that fall from partition to partition"
            )
        if not 0 <= self.fewest < self.most[-1]:
            raise UsageError(
                f"--fewest {self.fewest}: must be at least 0 and below the smallest of --most, {self.most[-1]}"
            )
        if not 0 <= self.start_level <= 30:
            raise UsageError(f"--start-level {self.start_level}: must be from 0 to 30")
        if self.smoothing_km < 0:
            raise UsageError(f"--smoothing-km {self.smoothing_km:g}: must not be below 0")
        if self.width < 1:
            raise UsageError(f"--width {self.width}: must be at least 1")
        whole = self.head == "classifier" or self.negatives == "all-cells"
        if self.smoothing_km and not whole:
            raise UsageError(f"--smoothing-km {self.smoothing_km:g}: weighs all cells; add --negatives all-cells")
        if self.combine == "literal" and self.head == "classifier":
            raise UsageError("--combine literal: multiplies cosines, which --head classifier has none of")
        if self.turned and (self.combine == "literal" or self.smoothing_km):
            raise UsageError("--turned: goes with neither --combine literal nor --smoothing-km")


@dataclass(frozen=True)
class GeocellChoices:
    """Which method's, and what is to be otherwise than in its paper; None is as there."""

    method: Method = "geosurge"
    """Whose cells, loss and inference."""
    most: tuple[int, ...] | None = None
    """Photos of a cell at most, of each partition, coarsest first (GeoSURGE: 25000 10000 5000 2000 1000 750 500)."""
    fewest: int | None = None
    """Cells with this many photos or fewer are left out (50)."""
    start_level: int | None = None
    """S2 level at which dividing begins (2; GeoSURGE's text has 0)."""
    turned: bool | None = None
    """Each partition divides the globe turned otherwise, so that their cells cross each other (CPlaNet)."""
    head: Head | None = None
    """Learned vectors for cells, or a linear classifier."""
    negatives: Negatives | None = None
    """What a photo's cell is told from, of embeddings: the cells of the batch's other photos, the same without those of its own
    cell (GeoSURGE), or all cells."""
    smoothing_km: float | None = None
    """Cells near a photo count as right too, within about so many km (PIGEON: 75; 0: its own cell alone)."""
    combine: Combine | None = None
    """How scores of partitions combine: the product of their softmaxes (GeoSURGE), the literal product of cosines, the sum
    (CPlaNet), or the finest alone (PlaNet)."""
    width: int | None = None
    """Of the embeddings (768)."""

    def options(self) -> GeocellOptions:
        """The method's with these in place of its own."""
        given = {name: value for name, value in vars(self).items() if name != "method" and value is not None}
        return replace(METHODS[self.method], **given)


METHODS: dict[Method, GeocellOptions] = {
    "geosurge": GeocellOptions(),
    "planet": GeocellOptions(most=(1_000,), head="classifier", combine="finest"),
    "isns": GeocellOptions(most=(5_000, 2_000, 1_000), head="classifier"),
    "cplanet": GeocellOptions(most=(4_000, 3_000, 2_000, 1_500, 1_000), turned=True, head="classifier", combine="sum"),
    "pigeon": GeocellOptions(most=(1_000,), head="classifier", smoothing_km=75, combine="finest"),
}
"""PlaNet (Weyand et al. 2016); ISNs' base network without scenes (Müller-Budack et al. 2018, f*: 3,298, 7,202 and 12,893 cells);
CPlaNet (Seo et al. 2018: five partitions); PIGEON (Haas et al. 2024) on S2 cells in place of administrative ones."""
