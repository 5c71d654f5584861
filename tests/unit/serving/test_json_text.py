import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.json_text import MAX_DEPTH, parse_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_comes_out_as_it_was_sent(value):
    assert parse_object(json.dumps(value), "params") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ("[1]", "must be a JSON object"),
        ('"{}"', "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1e999}', "no valid JSON"),
        ('{"a": "\\ud800"}', "no valid JSON"),
        ('{"a": ' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper than 32"),
        ("[" * 100_000, "nested deeper than 32"),
    ],
)
def test_what_could_not_be_written_again_is_refused(text, reason):
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        parse_object(text, "params")
    assert "'params'" in str(refusal.value)
    assert len(str(refusal.value)) < 300
