import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from deepgrow3d_app.evaluation.picture import WorstPicture
from deepgrow3d_app.evaluation.report import Chart, Curve, table_columns, table_rows, write_report
from deepgrow3d_app.evaluation.summary import series_of

PNG = bytes.fromhex("89504e470d0a1a0a")
EMPTY_ELEMENTS = {"meta", "img", "wbr"}
SHAPES = {"line", "polyline", "circle"}


class Page(HTMLParser):
    """What a browser would find in a page; elements that are not closed as they were opened are a fault."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str | None] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "data", "srcset")]
        if tag not in EMPTY_ELEMENTS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        assert tag in SHAPES
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def page_of(tmp_path):
    def write(results, pictures=()):
        write_report(results, pictures, tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return write


def test_every_structure_of_every_series_has_a_row_with_its_scores(make_trial, make_results, page_of):
    trials = [
        make_trial([0.50, 0.60, 0.70], structure, user=user, method=method)
        for method in ("network", "walker")
        for user in ("perfect", "noisy")
        for structure in ("liver", "adrenal_gland_left")
    ]
    page = page_of(make_results(trials))
    for structure in ("liver", "adrenal_gland_left"):
        rows = [row for row in page.rows if row[0] == structure]
        assert len(rows) == 4
        assert all(row[1:6] == ["8.0", "0.50", "0.70", "0.25", "0.35"] for row in rows)
    overall = [row[0] for row in page.rows]
    assert {"network", "network, noisy user", "walker", "walker, noisy user"} <= set(overall)


def test_hands_of_one_structure_share_a_row_and_are_no_cases(make_trial, make_results, page_of):
    noisy = [make_trial([dice] * 3, user="noisy", hand=hand) for hand, dice in enumerate((0.4, 0.6))]
    page = page_of(make_results([make_trial([0.8] * 3), *noisy]))
    assert [row[:3] for row in page.rows if row[0] == "liver"] == [["liver", "8.0", "0.80"], ["liver", "8.0", "0.50"]]
    assert "network, noisy user (2 hands)" in [row[0] for row in page.rows]


def test_structures_of_several_cases_also_have_a_row_each(make_trial, make_results, page_of):
    page = page_of(make_results([make_trial([0.4] * 3), make_trial([0.8] * 3, case="b")]))
    rows = [row[:4] for row in page.rows if row[0] == "liver"]
    assert rows == [["liver", "8.0", "2", "0.60"], ["liver", "a", "8.0", "0.40"], ["liver", "b", "8.0", "0.80"]]


def test_nothing_is_loaded_and_nothing_runs(make_trial, make_results, page_of, tmp_path):
    trial = make_trial([0.5, 0.6, 0.7])
    page = page_of(make_results([trial, make_trial([0.4] * 3, method="walker")]), [WorstPicture(trial, PNG)])
    assert sorted(page.sources) == ["#numbers", "data:image/png;base64,iVBORw0KGgo="]
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", text)


def test_names_are_text_and_never_markup(make_trial, make_results, page_of, tmp_path):
    hostile = '<script>alert("1")</script>&_{{ 7 * 7 }}'
    trial = make_trial([0.5, 0.6], hostile, case=hostile, method=hostile)
    page = page_of(make_results([trial], data=hostile), [WorstPicture(trial, PNG)])
    assert "script" not in page.tags
    assert any(row[0] == hostile for row in page.rows)
    assert any(text.startswith(f"Evaluation on {hostile}") for text in page.texts)
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_click_on_one_structure_without_a_picture(make_trial, make_results, page_of):
    page = page_of(make_results([make_trial([0.5])]))
    assert any(row[:4] == ["liver", "8.0", "0.50", "0.25"] for row in page.rows)
    assert not {"svg", "img"} & set(page.tags)


def test_an_infinite_distance_is_shown_as_such(make_trial, make_results, page_of):
    trial = make_trial([0.0, 0.5])
    empty = replace(trial.rounds[0], hd95_mm=None)
    trial = replace(trial, rounds=(empty, replace(empty, index=None, is_positive=None)))
    page = page_of(make_results([trial]), [WorstPicture(trial, PNG)])
    clicks = [row for row in page.rows if row[0] in ("1", "2") and len(row) >= 6]
    assert clicks[-2] == ["1", "foreground", "0, 0, 0", "0.000", "0.000", "∞", "0.50"]
    assert clicks[-1] == ["2", "nothing left to correct", "0.000", "0.000", "∞", "–"]  # noqa: RUF001
    assert any(row[0] == "mean" and "∞" in row for row in page.rows)


def test_the_best_of_a_column_is_marked_and_equal_numbers_are_equally_good(make_trial, make_results):
    trials = [make_trial([dice], method=method) for method, dice in (("x", 0.9), ("y", 0.8), ("z", 0.9001))]
    columns = table_columns(1)
    rows = table_rows([(s.title, s.mean()) for s in series_of(make_results(trials))], columns)
    best = {
        (column.group, column.title): [row.cells[number].is_best for row in rows]
        for number, column in enumerate(columns)
    }
    assert best["Dice after clicks", "1"] == [True, False, True]
    assert best["HD95", "mm"] == [True, False, True]  # 1.0, 2.0 and 0.999 mm: small is good
    assert best["seconds", "p50"] == [False, False, False]  # all the same


def chart(*ends):
    return Chart("Dice", tuple(Curve(f"s{n}", (0.3, end), n % 8) for n, end in enumerate(ends)))


def test_labels_keep_the_order_of_their_curves_and_never_overlap():
    drawn = chart(0.91, 0.9, 0.9, 0.5, 0.99, 0.905, 1.0)
    labels = drawn.labels
    assert [label.text for label in labels][:3] == ["1.00 s6", "0.99 s4", "0.91 s0"]
    assert all(b.y - a.y >= drawn.line_height - 1e-6 for a, b in pairwise(labels))
    assert drawn.top <= labels[0].y
    assert labels[-1].y <= drawn.bottom
    assert labels[-1].y == pytest.approx(labels[-1].end_y)  # nothing is near it


def test_of_too_many_curves_the_lowest_and_the_mean_are_named():
    many = chart(*(0.4 + 0.005 * n for n in range(100)))
    mean = Curve("mean", (0.3, 0.65))
    names = [label.curve.name for label in Chart("Dice", (*many.curves, mean)).labels]
    assert names[0] == "mean"
    assert names[1:] == [f"s{n}" for n in reversed(range(len(names) - 1))]
    assert 15 < len(names) < 25


def test_a_long_name_keeps_both_ends():
    long = "random walker, clicks of " + 40 * "x" + ", noisy user"
    (label,) = Chart("Dice", (Curve(long, (0.5, 0.6)),)).labels
    assert label.text.startswith("0.60 random walker")
    assert label.text.endswith("noisy user")
    assert "…" in label.text


def test_points_lie_on_the_scale():
    drawn = chart(1.0)  # from 0.3: the scale goes from 0.2 to 1
    assert drawn.ticks == [1.0, 0.8, 0.6, 0.4, 0.2]
    assert drawn.y(0.2) == drawn.bottom
    assert drawn.y(1.0) == drawn.top
    assert drawn.x(2) == drawn.right
