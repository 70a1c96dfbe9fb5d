"""Make confidences mean what they say: fit them on photos whose places are known.

python jobs/calibrate.py s3://bucket/geotags                (its own geotagged photos, located with --relocate)
python jobs/calibrate.py s3://bucket/geotags truth.csv
"""

from geoloc.options import parse
from geoloc.pipeline.calibration import CalibrationOptions, calibrate
from geoloc.pipeline.console import run_job

if __name__ == "__main__":
    run_job(lambda: calibrate(parse(CalibrationOptions, "Fit confidences on photos whose places are known.")))
