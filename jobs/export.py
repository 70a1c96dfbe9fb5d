"""Write a run's exports and its report again, or take its sidecars back.

python jobs/export.py s3://bucket/geotags --export csv xmp
python jobs/export.py s3://bucket/geotags --take-back s3://bucket/geotags/xmp
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("export")
