"""Learn which cell of the Earth a photo is in (GeoSURGE, PlaNet, ISNs, CPlaNet, PIGEON), from an index of photos.

python jobs/train_geocells.py s3://bucket/index s3://bucket/geocells --method geosurge
python jobs/geotag_archive.py s3://bucket/photos/ s3://bucket/geotags --recipe geosurge --index s3://bucket/geocells
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("train-geocells")
