import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.evaluation.compare import MIN_UNITS, bootstrap_intervals, compare
from deepgrow3d_app.evaluation.comparison_tables import print_comparison

STRUCTURES = ("liver", "spleen", "aorta", "colon", "pancreas", "gall[bladder]")


@pytest.fixture
def results_of(make_trial, make_results):
    """Results with one case and the given structures: Dice after one click, and 0.1 more after the third."""

    def make(dice, **changes):
        return make_results(
            [make_trial([d, d, d + 0.1], structure, **changes) for structure, d in zip(STRUCTURES, dice, strict=False)]
        )

    return make


def seeded():
    return np.random.default_rng(0)


def printed(comparison, width=100):
    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=width))
    return text.getvalue()


def test_means_and_differences_by_hand(results_of):
    comparison = compare(results_of([0.2, 0.6]), results_of([0.5, 0.5]), seeded())
    (part,) = comparison.users
    assert comparison.clicks == (1, 3)
    assert [(c.score, c.clicks) for c in part.changes] == [("Dice", 1), ("Dice", 3), ("NSD", 1), ("NSD", 3)]
    assert [c.a for c in part.changes] == pytest.approx([0.4, 0.5, 0.2, 0.25])
    assert [c.b for c in part.changes] == pytest.approx([0.5, 0.6, 0.25, 0.3])
    assert [c.difference for c in part.changes] == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert [pair.difference("Dice", 1) for pair in part.pairs] == pytest.approx([0.3, -0.1])
    # Half of the resamples of two take one of them twice.
    assert part.changes[0].interval == pytest.approx((-0.1, 0.3))


def test_equal_results_differ_by_nothing(results_of):
    results = results_of([0.2, 0.5, 0.7, 0.4, 0.6, 0.3])
    for change in compare(results, results, seeded()).users[0].changes:
        assert (change.difference, change.interval, change.verdict) == (0, (0, 0), "no clear difference")


def test_a_uniform_shift_has_no_spread(results_of):
    dice = [0.2, 0.5, 0.7, 0.4, 0.6, 0.3]
    changes = compare(results_of(dice), results_of([d + 0.1 for d in dice]), seeded()).users[0].changes
    assert changes[0].interval == pytest.approx((0.1, 0.1), abs=1e-12)
    assert changes[0].verdict == "better"


def test_swapping_flips_the_signs(results_of):
    a, b = results_of([0.2, 0.5, 0.7, 0.4, 0.6, 0.3]), results_of([0.4, 0.6, 0.8, 0.3, 0.9, 0.4])
    there, back = (compare(*both, seeded()).users[0].changes for both in ((a, b), (b, a)))
    for change, reverse in zip(there, back, strict=True):
        assert reverse.difference == pytest.approx(-change.difference)
        assert change.interval is not None
        assert reverse.interval == pytest.approx((-change.interval[1], -change.interval[0]))
    assert (there[0].verdict, back[0].verdict) == ("better", "worse")


def test_one_structure_has_no_interval_and_few_have_no_verdict(results_of):
    (part,) = compare(results_of([0.2]), results_of([0.9]), seeded()).users
    assert (part.changes[0].interval, part.changes[0].verdict) == (None, "no clear difference")
    few = [0.2] * (MIN_UNITS - 1)
    (part,) = compare(results_of(few), results_of([d + 0.5 for d in few]), seeded()).users
    assert part.changes[0].interval == pytest.approx((0.5, 0.5))
    assert part.changes[0].verdict == "no clear difference"
    assert f"5 structures: too few for a verdict, which takes {MIN_UNITS}" in printed(
        compare(results_of(few), results_of(few), seeded())
    )


def test_several_cases_are_resampled_as_wholes(make_trial, make_results):
    # Within a case all structures change alike: resampling structures would hide how much cases differ.
    def results(changes):
        return make_results([make_trial([0.4 + change], s, case) for case, change in changes for s in STRUCTURES])

    (part,) = compare(results([("x", 0), ("y", 0)]), results([("x", 0.2), ("y", 0.0)]), seeded()).users
    assert (part.resampled, part.units) == ("cases", 2)
    assert part.changes[0].interval == pytest.approx((0, 0.2))


def test_units_of_unequal_size_weigh_by_their_rows():
    # Draws of two units are (x, x), (x, y), (y, y); the mean over the rows of (x, y) is (3 * 0.1 + 0.5) / 4 = 0.2.
    differences = np.array([[0.1], [0.1], [0.1], [0.5]])
    low, high = bootstrap_intervals(differences, ["x", "x", "x", "y"], seeded(), 1000)
    assert (low[0], high[0]) == pytest.approx((0.1, 0.5))


def test_the_interval_agrees_with_the_normal_one_of_many_structures():
    differences = np.random.default_rng(1).normal(0.05, 0.1, (400, 1))
    low, high = bootstrap_intervals(differences, [str(n) for n in range(400)], seeded(), 10_000)
    error = differences.std() / 20
    assert low[0] == pytest.approx(differences.mean() - 1.96 * error, abs=0.0005)
    assert high[0] == pytest.approx(differences.mean() + 1.96 * error, abs=0.0005)


def test_users_are_kept_apart_and_clicks_of_others_left_out(make_trial, make_results):
    def results(dice):
        return make_results(
            [
                make_trial([dice]),
                make_trial([dice / 2], user="noisy"),
                make_trial([0.9], method="walker"),
                make_trial([0.1], method="walker", clicks_of="network"),
            ]
        )

    comparison = compare(results(0.4), results(0.6), seeded())
    assert [(part.user, part.changes[0].a) for part in comparison.users] == [("perfect", 0.4), ("noisy", 0.2)]
    named = compare(results(0.4), results(0.6), seeded(), method_b="walker")
    assert (named.method_a, named.method_b) == ("network", "walker")
    assert [(part.user, part.changes[0].b) for part in named.users] == [("perfect", 0.9)]
    assert named.only_in_a == (("a", "liver", "noisy"),)


def test_hands_that_both_have_are_averaged_and_the_others_left_out(make_trial, make_results):
    a = make_results([make_trial([0.2], user="noisy"), make_trial([0.4], user="noisy", hand=1)])
    b = make_results([make_trial([dice], user="noisy", hand=hand) for hand, dice in enumerate((0.5, 0.9, 0.0))])
    (part,) = compare(a, b, seeded()).users
    assert (len(part.pairs), part.units) == (1, 1)  # hands are no further structures
    assert (part.changes[0].a, part.changes[0].b) == pytest.approx((0.3, 0.7))
    assert part.pairs[0].difference("Dice", 1) == pytest.approx(0.4)
    assert (part.hands, part.hands_a, part.hands_b) == (2, 2, 3)
    single = compare(make_results(a.trials[:1]), b, seeded())
    assert (single.users[0].changes[0].a, single.users[0].changes[0].b) == (0.2, 0.5)
    console = Console(width=120, record=True, file=io.StringIO())
    print_comparison(single, console)
    assert "noisy user (1 hand, of 1 in A and 3 in B): means over 1 structure" in console.export_text()


def test_what_only_one_has_is_told(results_of, make_trial, make_results):
    b = make_results([make_trial([0.5] * 3, "spleen"), make_trial([0.5] * 3, "lesion")])
    comparison = compare(results_of([0.2, 0.5]), b, seeded())
    assert comparison.only_in_a == (("a", "liver", "perfect"),)
    assert comparison.only_in_b == (("a", "lesion", "perfect"),)
    text = printed(comparison)
    assert "Only in A: a, perfect user: liver" in text
    assert "Only in B: a, perfect user: lesion" in text


def test_fewer_clicks_on_one_side_are_compared_as_far_as_they_go(make_trial, make_results):
    a, b = make_results([make_trial([0.5] * 10)]), make_results([make_trial([0.5] * 4)])
    assert compare(a, b, seeded()).clicks == (1, 3)


def test_what_cannot_be_compared_is_refused(results_of, make_trial, make_results):
    a = results_of([0.2])
    with pytest.raises(InvalidRequest, match=r"A has a liver perfect, .* B has b liver perfect, .* Evaluate"):
        compare(a, results_of([0.2], case="b"), seeded())
    with pytest.raises(InvalidRequest, match=r"1000 voxels in A and 999 in B.*same labels"):
        compare(a, results_of([0.2], voxels=999), seeded())
    with pytest.raises(InvalidRequest, match=r"no method 'graph cut' in B. It has: network"):
        compare(a, a, seeded(), method_b="graph cut")
    stricter = make_results([make_trial([0.2] * 3)], nsd_tolerance_mm=1.0)
    with pytest.raises(InvalidRequest, match=r"tolerance of the NSD is 2 mm in A and 1 mm in B"):
        compare(a, stricter, seeded())


def test_noise_matters_only_where_noisy_users_are_compared(make_trial, make_results):
    trials = [make_trial([0.2]), make_trial([0.1], user="noisy")]
    with pytest.raises(InvalidRequest, match=r"noise of the clicks is 4 mm in A and 2 mm in B"):
        compare(make_results(trials), make_results(trials, noise_mm=2.0), seeded())
    assert compare(make_results(trials[:1]), make_results(trials, noise_mm=2.0), seeded()).users


def test_a_terminal_of_100_columns_shows_everything(make_trial, make_results):
    names = [*STRUCTURES, "portal_vein_and_splenic_vein"]
    a = make_results([make_trial([0.5] * 15, name) for name in names])
    b = make_results([make_trial([0.5 + 0.01 * n] * 15, name) for n, name in enumerate(names, start=-3)])
    text = printed(compare(a, b, seeded()))
    assert max(len(line) for line in text.splitlines()) <= 100
    listed = [line.split()[0] for line in text.splitlines() if line.split() and line.split()[0] in names]
    assert listed == names[::-1]  # from the most gained to the most lost
    assert "+0.03" in text
    assert "-0.03" in text


def test_gains_are_green_and_losses_red(results_of):
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system="standard")
    print_comparison(compare(results_of([0.2, 0.6]), results_of([0.5, 0.4]), seeded()), console)
    assert "\x1b[32m+0.30" in text.getvalue()
    assert "\x1b[31m-0.20" in text.getvalue()


def test_the_order_of_trials_does_not_matter(results_of):
    a, b = results_of([0.2, 0.5, 0.7]), results_of([0.4, 0.4, 0.9])
    shuffled = replace(b, trials=b.trials[::-1])
    assert compare(a, b, seeded()) == compare(a, shuffled, seeded())
