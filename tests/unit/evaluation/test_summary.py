import csv
from dataclasses import replace

import pytest

from deepgrow3d_app.evaluation.results import Round, Trial
from deepgrow3d_app.evaluation.summary import (
    NOC_CAP,
    area_under,
    clicks_needed,
    mean_of,
    series_of,
    summarise,
    write_summary,
)


def trial(dice, structure="liver", case="a", seconds=0.5, user="perfect", method="network", clicks_of=None, hand=0):
    rounds = tuple(Round((n, 0, 0), True, d, d / 2, 10.0 * (1 - d), seconds) for n, d in enumerate(dice))
    return Trial(case, structure, method, clicks_of or method, user, 1000, 8.0, rounds, hand)


def test_area_under_by_hand():
    assert area_under([1, 1, 1, 1, 1]) == 4  # the maximum over five clicks
    assert area_under([0.0, 0.5, 1.0]) == pytest.approx(0.25 + 0.75)


def test_clicks_needed_counts_from_one_and_takes_the_first():
    rounds = trial([0.5, 0.9, 0.7, 0.95]).rounds
    assert clicks_needed(rounds, 0.85) == 2
    assert clicks_needed(rounds, 0.95) == 4
    assert clicks_needed(rounds, 0.96) is None


def test_a_structure_that_never_gets_there_counts_as_the_cap():
    summary = summarise(trial([0.5, 0.86, 0.7]))
    assert (summary.noc85, summary.failed85) == (2, 0)
    assert (summary.noc90, summary.failed90) == (NOC_CAP, 1)
    assert summary.area(5) is None
    assert summary.area(3) == pytest.approx(0.68 + 0.78)


def test_the_mean_is_unweighted():
    mean = mean_of("mean", [trial([0.2, 0.9]), trial([0.6, 0.7], case="b")])
    assert mean.dice == pytest.approx((0.4, 0.8))
    assert mean.nsd == pytest.approx((0.2, 0.4))
    assert mean.hd95_mm == pytest.approx((6, 2))
    assert mean.noc85 == (2 + NOC_CAP) / 2
    assert mean.failed85 == 0.5


def test_rounds_without_a_click_took_no_time():
    done = Round(None, None, 1.0, 1.0, 0.0, 0.0)
    one = trial([0.9], seconds=2.0)
    summary = summarise(replace(one, rounds=(*one.rounds, done, done)))
    assert (summary.p50_s, summary.p95_s) == (2.0, 2.0)


def test_series_are_ordered_and_the_csv_has_a_row_for_each_trial_and_mean(make_results, tmp_path):
    trials = [
        trial([0.5, 0.6, 0.7, 0.8, 0.9], user="noisy"),
        trial([0.6, 0.7, 0.8, 0.9, 0.9]),
        trial([0.4, 0.5, 0.6, 0.9, 0.9], structure="spleen"),
        trial([0.1, 0.2, 0.3, 0.4, 0.5], method="walker", clicks_of="network"),
        trial([0.2, 0.3, 0.4, 0.5, 0.6], method="walker"),
    ]
    results = make_results(trials)
    titles = [series.title for series in series_of(results)]
    assert titles == ["network", "network, noisy user", "walker", "walker, clicks of network"]
    write_summary(results, tmp_path / "summary.csv")
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [row["structure"] for row in rows] == ["liver", "spleen", "mean"] + ["liver", "mean"] * 3
    mean = rows[2]
    assert [float(mean[f"dice_{n}"]) for n in (1, 3, 5)] == pytest.approx([0.5, 0.7, 0.9])
    assert float(mean["dice_area_1_5"]) == pytest.approx(0.25 + 0.6 + 0.7 + 0.9 + 0.45)
    assert mean["dice_area_1_15"] == ""
    assert float(mean["noc85"]) == 4


def test_hands_of_one_structure_share_a_row_and_count_as_one_structure(make_results, tmp_path):
    trials = [
        trial([0.2], user="noisy"),
        trial([0.4], user="noisy", hand=1),
        trial([0.8], user="noisy", structure="spleen"),
        trial([0.6], user="noisy", structure="spleen", hand=1),
    ]
    results = make_results(trials)
    (noisy,) = series_of(results)
    assert noisy.title == "network, noisy user (2 hands)"
    assert [(row.case, row.name, row.structures) for row in noisy.by_case()] == [("a", "liver", 1), ("a", "spleen", 1)]
    assert [row.dice[0] for row in noisy.by_case()] == pytest.approx([0.3, 0.7])
    assert (noisy.mean().structures, noisy.mean().case) == (2, "")
    assert noisy.mean().dice[0] == pytest.approx(0.5)
    assert [noisy.of_hand(hand).mean().dice[0] for hand in (0, 1)] == pytest.approx([0.5, 0.5])
    write_summary(results, tmp_path / "summary.csv")
    rows = list(csv.DictReader((tmp_path / "summary.csv").read_text().splitlines()))
    assert [(row["structure"], row["hands"]) for row in rows] == [("liver", "2"), ("spleen", "2"), ("mean", "2")]
    assert [float(row["dice_1"]) for row in rows] == [0.3, 0.7, 0.5]


def test_structures_of_several_cases_share_a_row(make_results):
    results = make_results([trial([0.4]), trial([0.8], case="b"), trial([0.5], structure="spleen")])
    (series,) = series_of(results)
    rows = series.by_structure()
    assert [(row.name, row.structures, row.dice[0]) for row in rows] == [
        ("liver", 2, pytest.approx(0.6)),
        ("spleen", 1, 0.5),
    ]
