"""Answer for single photos over HTTP, with a page to drop them on.

python jobs/serve.py --preset lite --index /data/index          # http://127.0.0.1:8000
"""

from geoloc.options import parse
from geoloc.pipeline.console import run_job
from geoloc.serving.service import ServiceOptions, run_service

if __name__ == "__main__":
    run_job(lambda: run_service(parse(ServiceOptions, "Answer for single photos over HTTP.")))
