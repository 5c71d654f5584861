import pytest

from deepgrow3d_app.cases.structure_table import structure_table, to_table
from deepgrow3d_app.errors import InvalidInput


def test_values_stay_where_cases_agree():
    assert structure_table([{"spleen": 3}, {"liver": 1, "spleen": 3}, {}]) == {"liver": 1, "spleen": 3}


@pytest.mark.parametrize("names", [[{"spleen": 1}, {"liver": 1}], [{"spleen": 1}, {"spleen": 2, "liver": 1}]])
def test_names_are_numbered_anew_where_cases_disagree(names):
    table = structure_table(names)
    assert table == {"liver": 1, "spleen": 2}
    for own in names:
        lookup = to_table(own, table)
        assert {name: int(lookup[value]) for name, value in own.items()} == {name: table[name] for name in own}


def test_what_has_no_name_becomes_background_where_others_have_names():
    lookup = to_table({"liver": 5}, {"liver": 7})
    assert (lookup[5], lookup[6]) == (7, 0)


def test_without_any_name_values_stay():
    assert structure_table([{}, {}]) == {}
    assert to_table({}, {}).tolist() == list(range(256))


def test_a_label_map_has_no_room_for_256_structures():
    with pytest.raises(InvalidInput, match="256 different structures, a label map holds 255"):
        structure_table([{f"a{value}": value for value in range(1, 256)}, {"b": 1}])


def test_what_has_a_value_keeps_it_whatever_comes_later():
    known = {"liver": 1, "spleen": 2}
    assert structure_table([{"liver": 1}, {"spleen": 2}, {"aorta": 1}], known) == {"liver": 1, "spleen": 2, "aorta": 3}
    # As numbered in its own case, where that is free.
    assert structure_table([{"liver": 1}, {"aorta": 7}], known) == {"liver": 1, "aorta": 7}
    # A case that calls something else its number 1 moves nothing.
    assert structure_table([{"spleen": 1}], known) == {"spleen": 2}


def test_values_of_names_gone_by_are_taken_last():
    known = {f"old {value}": value for value in range(1, 255)} | {"liver": 255}
    assert structure_table([{"liver": 1, "aorta": 2, "cava": 3}], known) == {"aorta": 1, "cava": 2, "liver": 255}


def test_where_nothing_known_is_left_a_table_is_made_anew():
    assert structure_table([{"liver": 4}], {"spleen": 4}) == {"liver": 4}
