"""Tell where the photos of an archive were taken.

python jobs/geotag_archive.py s3://bucket/photos/ s3://bucket/geotags --index s3://bucket/index
ray job submit --working-dir . -- python jobs/geotag_archive.py s3://bucket/photos/ s3://bucket/geotags --index …
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("geotag")
