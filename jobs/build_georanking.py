"""Make the set that a ranker is trained on: photos of known place with what retrieval finds for them.

python jobs/build_georanking.py s3://bucket/geotagged.parquet s3://bucket/georanking --index s3://bucket/index
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("georanking")
