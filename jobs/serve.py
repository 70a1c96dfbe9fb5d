"""Answer for single photos over HTTP, with a page to drop them on.

python jobs/serve.py --recipe lite --index /data/index          # http://127.0.0.1:8000
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("serve")
