"""Make, list and revoke the API keys of a service.

python jobs/keys.py keys.txt --make ann          # prints the key, once
python jobs/keys.py keys.txt                     # who has one
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("keys")
