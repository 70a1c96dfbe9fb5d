"""Make the set that a ranker is trained on: photos of known place with what retrieval finds for them.

python jobs/build_georanking.py s3://bucket/geotagged.parquet s3://bucket/georanking --index s3://bucket/index
"""

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.pipeline.georanking import GeoRankingJobOptions, build_georanking

if __name__ == "__main__":
    run_job(lambda: build_georanking(parse(GeoRankingJobOptions, "Make the set that a ranker is trained on.")))
