"""Photos locate each other: from a table of any system's estimates, and of the places that are known, to joint answers.

python jobs/locate_together.py estimates.csv out
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("together")
