"""How good is it: judge predictions against the truth.

python jobs/evaluate.py predictions.csv truth.csv out
python jobs/evaluate.py ours=s3://bucket/geotags theirs=predictions.parquet im2gps3k_places365.csv out
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("evaluate")
