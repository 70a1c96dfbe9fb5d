"""Tell how far a run is.

python jobs/status.py s3://bucket/geotags
python jobs/status.py s3://bucket/geotags --json
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("status")
