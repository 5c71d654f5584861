import pytest

from deepgrow3d_app.retraining.gate import REFERENCE_TOLERANCE, Score, Scores, decide


def scores(site, reference):
    """Mean Dice on the site's cases and on the reference case; None for no such case."""
    made = [
        None if mean is None else Score(structures=2, dice={1: mean - 0.1, 3: mean + 0.1}) for mean in (site, reference)
    ]
    return Scores(site=made[0], reference=made[1])


@pytest.mark.parametrize(
    ("before", "after", "is_published", "said"),
    [
        ((0.60, 0.80), (0.61, 0.80), True, "Published: better on held-out cases of these studies"),
        ((0.60, 0.80), (0.61, 0.95), True, "no worse on the reference case"),
        ((0.60, 0.80), (0.61, 0.7905), True, "no worse on the reference case"),
        ((0.60, 0.80), (0.61, 0.7895), False, "worse on the reference case by 0.011 at 3 clicks, and may be by 0.01"),
        ((0.60, 0.80), (0.60, 0.90), False, "not better on held-out cases of these studies"),
        ((0.60, 0.80), (0.50, 0.70), False, "and it is worse on the reference case by 0.100"),
        ((0.60, None), (0.61, None), True, "0.600 before, 0.610 now"),
        ((None, 0.80), (None, 0.90), False, "label at least two patients"),
    ],
)
def test_what_is_published(before, after, is_published, said):
    decision = decide(scores(*before), scores(*after), is_forced=False)
    assert decision.is_published is is_published
    assert said in decision.reason
    assert decision.reason.startswith("Published: " if is_published else "Not published: ")
    forced = decide(scores(*before), scores(*after), is_forced=True)
    assert forced.is_published
    assert forced.reason.startswith("Published: " if is_published else "Published because it was forced, although ")


def test_a_loss_at_one_number_of_clicks_is_not_made_up_for_at_another():
    before = scores(0.60, 0.80)
    after = Scores(site=scores(0.65, None).site, reference=Score(structures=2, dice={1: 0.80, 3: 0.88}))
    assert after.reference is not None
    assert before.reference is not None
    assert after.reference.mean > before.reference.mean
    decision = decide(before, after, is_forced=False)
    assert not decision.is_published
    assert "worse on the reference case by 0.020 at 3 clicks" in decision.reason
    assert REFERENCE_TOLERANCE == 0.01
