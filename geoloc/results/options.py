"""What of a run's results is exported, and how."""

from dataclasses import dataclass
from typing import Literal

from geoloc.errors import UsageError
from geoloc.results.iceberg import check_table

Names = Literal["photo.jpg.xmp", "photo.xmp"]
FORMATS = ("geojson", "csv", "xmp")
MAX_RADIUS_KM = {"uncalibrated": 25.0, "calibrated": 200.0}
"""Of what is exported, where nothing else is said: a city; a region, where the radius is known to hold."""


@dataclass(frozen=True)
class ExportOptions:
    export: tuple[Literal["geojson", "csv", "xmp"], ...] = ()
    """Also write the results as geojson, as csv for exiftool, or as xmp sidecars."""
    export_max_radius_km: float | None = None
    """Export no estimate whose radius is larger, km (default: 25, or 200 with --calibration)."""
    overwrite_unreadable_gps: bool = False
    """Export estimates to csv and xmp also of photos that carry a position which cannot be read, or is no place."""
    csv_root: str | None = None
    """What SourceFile begins with in the csv, in place of SOURCE: the folder where exiftool will find the photos (default:
    SOURCE; paths are relative where that is a bucket)."""
    xmp_names: Names = "photo.jpg.xmp"
    """How sidecars are called."""
    table: str | None = None
    """Also write all results to this table of Apache Iceberg, CATALOG.NAMESPACE.TABLE, of a catalog that pyiceberg's configuration
    names; readers see it change at once."""

    def check(self) -> None:
        """Raises UsageError."""
        for name in self.export:
            if name not in FORMATS:
                raise UsageError(f"--export {name}: there is {', '.join(FORMATS)}")
        if self.table is not None:
            check_table(self.table)
        if self.export_max_radius_km is not None and self.export_max_radius_km <= 0:
            raise UsageError(f"--export-max-radius-km {self.export_max_radius_km:g}: must be above 0")

    def max_radius_km(self, calibrated: bool) -> float:
        return self.export_max_radius_km or MAX_RADIUS_KM["calibrated" if calibrated else "uncalibrated"]
