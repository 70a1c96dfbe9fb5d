"""Make an index of geotagged photos to find other photos' places with.

python jobs/build_index.py s3://bucket/geotagged/ s3://bucket/index --encoder lite
python jobs/build_index.py gallery index-of-coordinates
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("index")
