"""Make confidences mean what they say: fit them on photos whose places are known.

python jobs/calibrate.py s3://bucket/geotags                (its own geotagged photos, located with --relocate)
python jobs/calibrate.py s3://bucket/geotags truth.csv
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("calibrate")
