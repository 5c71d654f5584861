import pytest

from deepgrow3d_app.evaluation.model_card import Hands
from deepgrow3d_app.evaluation.summary import series_of


def test_hands_stay_behind_the_perfect_user_by_their_mean(make_trial, make_results):
    # Means of the hands at the only click: 0.4, 0.5 and 0.9.
    noisy = [
        make_trial([dice], structure, user="noisy", hand=hand)
        for hand, pair in enumerate(((0.3, 0.5), (0.6, 0.4), (0.8, 1.0)))
        for structure, dice in zip(("liver", "spleen"), pair, strict=True)
    ]
    results = make_results([make_trial([0.7], "liver"), make_trial([0.8], "spleen"), *noisy])
    perfect_series, noisy_series = series_of(results)
    hands = Hands.of(perfect_series, noisy_series, (1,))
    assert hands is not None
    assert [row.dice[0] for row in hands.rows] == pytest.approx([0.4, 0.5, 0.9])
    assert hands.below_perfect == pytest.approx((0.75 - 0.6,))
    # Deviations from 0.6: -0.2, -0.1 and 0.3; their squares sum to 0.14, over 2 and 3 hands.
    assert hands.standard_error == pytest.approx(((0.14 / 2 / 3) ** 0.5,))


def test_a_single_hand_tells_nothing_of_luck(make_trial, make_results):
    perfect_series, noisy_series = series_of(make_results([make_trial([0.7]), make_trial([0.5], user="noisy")]))
    assert Hands.of(perfect_series, noisy_series, (1,)) is None
