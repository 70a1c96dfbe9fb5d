import csv

import numpy as np

from geoloc.geo.distance import haversine_km
from geoloc.geo.places import places
from geoloc.toy.models import write_qwen2_vl
from geoloc.toy.planet import CITY_RADIUS_KM, Planet


def test_cities_are_on_land_and_apart(planet):
    lat, lon = (np.array([getattr(city, name) for city in planet.cities]) for name in ("lat", "lon"))
    assert all(place["country"] for place in places().lookup(lat, lon).to_pylist())
    km = haversine_km(lat[:, None], lon[:, None], lat, lon) + 1e6 * np.eye(len(lat))
    assert km.min() > 250


def test_a_seed_is_a_world(planet):
    same, other = Planet(cities=12, countries=4, continents=3), Planet(seed=8, cities=12, countries=4, continents=3)
    assert same.cities == planet.cities != other.cities
    pictures = [p.photo(3, 10.0, 20.0, np.random.default_rng(5)).tobytes() for p in (planet, same, other)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_photos_are_taken_in_their_city(planet):
    random = np.random.default_rng(0)
    places_ = np.array([planet.place(5, random) for _ in range(300)])
    km = haversine_km(places_[:, 0], places_[:, 1], planet.cities[5].lat, planet.cities[5].lon)
    assert np.sqrt(np.mean(km**2) / 2) / CITY_RADIUS_KM == np.clip(
        np.sqrt(np.mean(km**2) / 2) / CITY_RADIUS_KM, 0.85, 1.15
    )


def test_near_places_look_alike(planet):
    """The fields that can be learned anywhere change with distance, not with the draw."""
    here, near, far = planet.fields(40.0, 10.0), planet.fields(40.1, 10.1), planet.fields(-30.0, 140.0)
    assert np.abs(here - near).max() < 0.02 < np.abs(here - far).max()


def test_truth_names_every_file(toy):
    with (toy / "truth.csv").open() as file:
        names = {row["uri"] for row in csv.DictReader(file)}
    assert names == {str(path) for path in (toy / "archive").resolve().rglob("*") if path.is_file()}


def test_the_tiny_qwen2_vl_reads_a_picture_and_a_question(tmp_path):
    from PIL import Image
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    folder = write_qwen2_vl(tmp_path / "qwen")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    processor = AutoProcessor.from_pretrained(folder)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How far is this place?"}]}]
    text = processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        "<|vision_end|>How far is this place?<|im_end|>\n<|im_start|>assistant\n"
    )
    inputs = processor(text=[text], images=[Image.new("RGB", (84, 56))], return_tensors="pt")
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 6]]
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder)
    assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape
