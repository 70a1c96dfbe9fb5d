"""Write photos of a made-up planet: references/ with GPS, archive/ to be geotagged, and truth.csv about it.

python jobs/make_toy_planet.py demo/planet --references 1000 --photos 300
"""

from geoloc.cli import run_command

if __name__ == "__main__":
    run_command("toy-planet")
