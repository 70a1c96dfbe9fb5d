"""Learn G3's geo-alignment: image heads that retrieve photos of near places.

python jobs/train_alignment.py s3://bucket/geotagged.parquet s3://bucket/alignment --encoder geoclip
python jobs/build_index.py s3://bucket/geotagged.parquet s3://bucket/index --encoder s3://bucket/alignment
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("train-alignment")
