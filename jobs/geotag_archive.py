"""Tell where the photos of an archive were taken.

python jobs/geotag_archive.py s3://bucket/photos/ s3://bucket/geotags --index s3://bucket/index
ray job submit --working-dir . -- python jobs/geotag_archive.py s3://bucket/photos/ s3://bucket/geotags --index …
"""

from geoloc.options import parse
from geoloc.pipeline.archive import ArchiveOptions, geotag_archive
from geoloc.pipeline.console import run_job

if __name__ == "__main__":
    run_job(lambda: geotag_archive(parse(ArchiveOptions, "Tell where the photos of an archive were taken.")))
