from geoloc.evaluation.datasets import DATASETS
from geoloc.evaluation.published import PROTOCOLS, published


def test_every_row_names_its_table_and_is_a_curve():
    for name in DATASETS:
        for row in published(name):
            figures = [figure for figure in row.accuracy.values() if figure is not None]
            assert figures == sorted(figures)
            assert 0 < figures[0] < figures[-1] < 100
            assert row.source.split(", Table ")[0] in PROTOCOLS


def test_papers_that_disagree_both_speak():
    """methods.md 6.6."""
    rows = {(row.method, row.source): tuple(row.accuracy.values()) for row in published("im2gps3k")}
    assert rows["Img2Loc", "GeoRanker, Table 1"] == (15.34, 39.83, 53.59, 69.7, 82.78)
    assert rows["Img2Loc/GPT-4V", "GeoSURGE, Table II"] == (17.1, 45.1, 57.9, 72.9, 84.7)
    assert rows["PIGEON", "GeoRanker, Table 1"] == (11.3, 36.7, 53.8, 72.4, 85.3)
    assert rows["PIGEOTTO", "GeoSURGE, Table II"] == (10.9, 35.8, 52.4, 70.7, 84.4)
    rows = {(row.method, row.source): tuple(row.accuracy.values()) for row in published("yfcc4k")}
    assert rows["ISNs", "GeoRanker, Table 1"] == (6.5, 16.2, 23.8, 37.4, 55)
    assert rows["ISNs", "GeoSURGE, Table III"] == (6.7, 16.5, 24.2, 37.5, 54.9)
    assert rows["GeoDecoder", "GeoRanker, Table 1"][0] == 10.3
    assert rows["GeoDecoder", "GeoSURGE, Table III"][0] == 10.4
    note = next(row.note for row in published("im2gps") if row.method == "[L]kNN")
    assert "28 million" in note
