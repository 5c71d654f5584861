import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.errors import InvalidClicks, InvalidRequest
from deepgrow3d_app.serving.infer_request import MAX_CLICKS, InferRequest

VOXELS = st.tuples(*[st.integers(-1000, 1000)] * 3)


def params(**changes):
    return {"foreground": [[1, 2, 3]], "background": []} | changes


def test_what_slicer_sends():
    request = InferRequest.from_params(
        {
            "label": "spleen",
            "foreground": [[66, 180, 105]],
            "background": [[1, 2, 3]],
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
            "client_id": "user-xyz",
            "device": "NVIDIA",
            "reset_state": True,
        }
    )
    assert request == InferRequest(
        clicks=(Click((66, 180, 105)), Click((1, 2, 3), is_positive=False)),
        label="spleen",
        client="user-xyz",
        result_extension=".nrrd",
        compress=True,
    )


def test_what_ohif_sends():
    request = InferRequest.from_params(
        {
            "foreground": [[68, 50, 55]],
            "background": [],
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
            "result_compress": False,
            "restore_label_idx": False,
        }
    )
    assert request == InferRequest((Click((68, 50, 55)),), result_extension=".nrrd", compress=False)


@given(st.lists(VOXELS, max_size=5), st.lists(VOXELS, max_size=5))
def test_clicks_keep_their_voxels_signs_and_order(foreground, background):
    request = InferRequest.from_params(
        {"foreground": [list(voxel) for voxel in foreground], "background": [[float(n) for n in v] for v in background]}
    )
    assert [click.index for click in request.clicks if click.is_positive] == foreground
    assert [click.index for click in request.clicks if not click.is_positive] == background
    assert all(type(position) is int for click in request.clicks for position in click.index)


@pytest.mark.parametrize(
    "points",
    [
        "[[1, 2, 3]]",
        {"0": [1, 2, 3]},
        7,
        True,
        [1, 2, 3],
        [[1, 2]],
        [[1, 2, 3, 4]],
        [[]],
        ["123"],
        [None],
        [[1, 2, "3"]],
        [[1, 2, None]],
        [[1, 2, True]],
        [[1, 2, 3.5]],
        [[1, 2, float("nan")]],
        [[1, 2, float("inf")]],
        [[1, 2, 1e300]],
        [[1, 2, -(10**30)]],
        [[1, 2, [3]]],
        [[1, 2, 3]] * (MAX_CLICKS + 1),
    ],
)
@pytest.mark.parametrize("side", ["foreground", "background"])
def test_clicks_that_are_no_voxels_are_refused_by_name(side, points):
    with pytest.raises(InvalidClicks, match=f"^'{side}'") as refusal:
        InferRequest.from_params(params(**{side: points}))
    assert "Send" in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("side", ["foreground", "background"])
def test_a_missing_side_is_refused_with_the_remedy(side):
    sent = params()
    del sent[side]
    with pytest.raises(InvalidClicks, match=f'Send "{side}": .* or "{side}": \\[\\] for none'):
        InferRequest.from_params(sent)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("result_extension", ".exe"),
        ("result_extension", "nrrd"),
        ("result_extension", [".nrrd"]),
        ("result_dtype", "float32"),
        ("result_dtype", ["uint8"]),
        ("result_compress", "false"),
        ("label", 7),
        ("label", "x" * 201),
        ("client_id", {}),
    ],
)
def test_other_values_that_cannot_be_used_are_refused_by_name(name, value):
    with pytest.raises(InvalidRequest, match=f"^'{name}'"):
        InferRequest.from_params(params(**{name: value}))


def test_null_means_unsaid():
    unsaid = dict.fromkeys(["label", "client_id", "result_extension", "result_dtype", "result_compress"])
    assert InferRequest.from_params(params(**unsaid)) == InferRequest.from_params(params())
