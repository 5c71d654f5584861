import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.batch.order import BatchOrder

PROMPTS = {"ct": {"liver": {"foreground": [[1, 2, 3]], "background": [[3, 2, 1]]}}}


def test_prompts_are_clicks():
    order = BatchOrder.of({"prompts": PROMPTS, "client_id": "x"})
    assert order.prompts["ct"]["liver"].clicks == [Click((1, 2, 3)), Click((3, 2, 1), False)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Say where to click, in one way"),
        ({"prompts": PROMPTS, "seeds_from": "original"}, "in one way"),
        ({"prompts": {"ct": {"liver": {"foreground": []}}}}, "prompts.ct.liver.foreground"),
        ({"prompts": {"ct": {"liver": {"foreground": [[1, 2]]}}}}, "prompts.ct.liver.foreground"),
        ({"prompts": {"ct": {"liver": [[1, 2, 3]]}}}, "prompts.ct.liver"),
        ({"prompts": PROMPTS, "label_tag": "../x"}, "cannot be a label's tag"),
        ({"seeds_from": "batch"}, "would replace the label 'batch'"),
        ({"seeds_from": "final", "images": 3}, "images"),
    ],
)
def test_an_order_that_cannot_be_followed_is_refused(given, said):
    with pytest.raises(InvalidRequest, match=said):
        BatchOrder.of(given)
