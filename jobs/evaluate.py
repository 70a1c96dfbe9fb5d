"""How good is it: judge predictions against the truth.

python jobs/evaluate.py predictions.csv truth.csv out
python jobs/evaluate.py ours=s3://bucket/geotags theirs=predictions.parquet im2gps3k_places365.csv out
"""

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.pipeline.evaluation import EvaluationOptions, evaluate_runs

if __name__ == "__main__":
    run_job(lambda: evaluate_runs(parse(EvaluationOptions, "Judge predictions against the truth.")))
