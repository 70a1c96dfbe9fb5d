from geoloc.photos.crumbs import Crumbs


def test_a_photo_is_deadly_after_two_deaths(tmp_path):
    path = tmp_path / "folder" / "unit"

    def die_at(*photos: int) -> set[int]:
        crumbs = Crumbs(path)
        for photo in photos:
            crumbs.at(photo)
        return crumbs.deadly  # and is never left

    assert die_at(1, 2, 700_000_000_000) == set()
    assert die_at(1, 2) == set()
    assert die_at(1, 700_000_000_000) == set()
    assert die_at(1, 2) == {700_000_000_000}
    assert die_at(3) == {700_000_000_000, 2}


def test_the_living_leave_nothing(tmp_path):
    with Crumbs(tmp_path / "unit") as crumbs:
        crumbs.at(5)
        assert (tmp_path / "unit").exists()
    assert list(tmp_path.iterdir()) == []
    assert Crumbs(tmp_path / "unit").deadly == set()
