"""Write a run's exports and its report again, or take its sidecars back.

python jobs/export.py s3://bucket/geotags --export csv xmp
python jobs/export.py s3://bucket/geotags --take-back s3://bucket/geotags/xmp
"""

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.pipeline.publication import PublicationOptions, publish_again

if __name__ == "__main__":
    run_job(lambda: publish_again(parse(PublicationOptions, "Write a run's exports and report again.")))
