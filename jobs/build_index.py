"""Make an index of geotagged photos to find other photos' places with.

python jobs/build_index.py s3://bucket/geotagged/ s3://bucket/index --preset lite
python jobs/build_index.py gallery index-of-coordinates
"""

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.pipeline.references import IndexOptions, build_index

if __name__ == "__main__":
    run_job(lambda: build_index(parse(IndexOptions, "Make an index of geotagged photos.")))
