"""Fine-tune GeoRanker: a vision-language model that learns which candidate place is nearest to a photo.

python jobs/build_georanking.py s3://bucket/geotagged.parquet s3://bucket/georanking --index s3://bucket/index
python jobs/train_ranker.py s3://bucket/georanking s3://bucket/ranker --model Qwen/Qwen2-VL-7B-Instruct
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("train-ranker")
