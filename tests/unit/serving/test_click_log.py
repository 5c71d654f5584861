import itertools
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.serving.click_log import MAX_ANSWERS, Answered, ClickLog, way_to
from deepgrow3d_app.serving.click_memory import Clicks, Subject

LIVER = Subject("ct.nii.gz", (1,), (1,), "liver", "anna")
A, B, C, D = Click((0, 0, 0)), Click((1, 1, 1)), Click((2, 2, 2), is_positive=False), Click((3, 3, 3))


def of(*clicks):
    return frozenset(clicks)


def answered(clicks, made_from=None):
    return Answered(of(*clicks), None if made_from is None else of(*made_from))


ONE_BY_ONE = [answered([A]), answered([A, B], [A]), answered([A, B, C], [A, B])]


def test_clicks_that_were_answered_are_answered_in_the_same_way_again():
    assert way_to(of(A, B, C), ONE_BY_ONE) == [of(A), of(A, B), of(A, B, C)]
    assert way_to(of(A, B), ONE_BY_ONE) == [of(A), of(A, B)]
    at_once = [answered([A, B])]
    assert way_to(of(A, B), at_once) == [of(A, B)]


def test_a_further_click_starts_from_the_most_that_were_answered():
    assert way_to(of(A, B, C, D), ONE_BY_ONE) == [of(A), of(A, B), of(A, B, C), of(A, B, C, D)]
    assert way_to(of(A, C), ONE_BY_ONE) == [of(A), of(A, C)]
    assert way_to(of(D), ONE_BY_ONE) == [of(D)]


def test_of_several_with_as_many_clicks_the_latest_is_taken():
    history = [answered([A]), answered([B])]
    assert way_to(of(A, B), history) == [of(B), of(A, B)]


@given(st.lists(st.frozensets(st.integers(0, 5), min_size=1), max_size=12))
def test_an_answer_is_made_the_same_way_whenever_it_is_asked_for(asked):
    """Whatever was asked before or after: the way to clicks that were answered once never changes."""
    history: list[Answered] = []
    ways: dict[Clicks, list[Clicks]] = {}
    for numbers in asked:
        clicks = frozenset(Click((number, 0, 0)) for number in numbers)
        way = way_to(clicks, history)
        assert way[-1] == clicks
        assert all(earlier < later for earlier, later in itertools.pairwise(way))
        assert ways.setdefault(clicks, way) == way
        if clicks not in {one.clicks for one in history}:
            history.append(Answered(clicks, way[-2] if len(way) > 1 else None))
    for clicks, way in ways.items():
        assert way_to(clicks, history) == way


def fill(log, subject=LIVER):
    for one in ONE_BY_ONE:
        log.add(subject, one)


def test_the_log_outlives_the_process(tmp_path):
    fill(ClickLog(tmp_path))
    assert list(ClickLog(tmp_path).history(LIVER)) == ONE_BY_ONE


def test_subjects_have_logs_of_their_own_and_models_share_one(tmp_path):
    log = ClickLog(tmp_path)
    fill(log)
    assert not log.history(Subject("ct.nii.gz", (1,), (1,), "spleen", "anna"))
    assert not log.history(Subject("ct.nii.gz", (2,), (1,), "liver", "anna"))
    assert not log.history(Subject("ct.nii.gz", (1,), (1,), "liver", "anna", "anna"))
    assert list(log.history(Subject("ct.nii.gz", (1,), (2,), "liver", "anna"))) == ONE_BY_ONE


def test_an_answer_that_is_logged_stays_as_it_is(tmp_path):
    log = ClickLog(tmp_path)
    fill(log)
    log.add(LIVER, answered([A, B]))
    assert list(ClickLog(tmp_path).history(LIVER)) == ONE_BY_ONE


def test_after_an_undo_the_clicks_of_before_are_the_latest_again(tmp_path):
    log = ClickLog(tmp_path)
    fill(log)
    log.add(LIVER, answered([A, B], [A]))
    assert log.history(LIVER)[-1] == answered([A, B], [A])
    assert set(log.history(LIVER)) == set(ONE_BY_ONE) == set(ClickLog(tmp_path).history(LIVER))


def test_the_files_of_a_server_without_sign_in_are_called_as_ever(tmp_path):
    """What was logged before is found again."""
    fill(ClickLog(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == [
        "6ece90eec70577c1f4ada1dfe40e150f-2660664fed8af7a11a42259c02996590.jsonl"
    ]


@pytest.mark.parametrize("cut", range(2, 30, 4))
def test_a_line_that_a_kill_left_half_written_does_not_count(tmp_path, cut):
    fill(ClickLog(tmp_path))
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-cut])
    log = ClickLog(tmp_path)
    assert list(log.history(LIVER)) == ONE_BY_ONE[:2]
    log.add(LIVER, ONE_BY_ONE[2])
    assert list(ClickLog(tmp_path).history(LIVER)) == ONE_BY_ONE


def test_a_line_that_lacks_nothing_but_its_end_counts(tmp_path):
    fill(ClickLog(tmp_path))
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-1])
    log = ClickLog(tmp_path)
    assert list(log.history(LIVER)) == ONE_BY_ONE
    log.add(LIVER, answered([A, D], [A]))
    assert list(ClickLog(tmp_path).history(LIVER)) == [*ONE_BY_ONE, answered([A, D], [A])]


def test_a_line_that_another_process_is_still_writing_is_left_to_it(tmp_path):
    fill(ClickLog(tmp_path))
    file = next(tmp_path.iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    log = ClickLog(tmp_path)
    assert list(log.history(LIVER)) == ONE_BY_ONE[:2]
    with file.open("ab") as other:
        other.write(whole[-20:])
    assert list(log.history(LIVER)) == ONE_BY_ONE
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "7",
        json.dumps({"clicks": [[1]], "made_from": None}),
        json.dumps({"clicks": [[1, 1, 1, 1]], "made_from": [[1, 1, 1, 1]]}),
        json.dumps({"clicks": [[1, 1, 1, 1]], "made_from": [[2, 2, 2, 1]]}),
        json.dumps({"clicks": [[1, 1, 1, 1], [2, 2, 2, 1]], "made_from": [[1, 1, 1, 1]]}),
    ],
)
def test_a_damaged_log_is_used_as_far_as_it_goes(tmp_path, line, caplog):
    fill(ClickLog(tmp_path))
    file = next(tmp_path.iterdir())
    file.write_text(file.read_text().splitlines()[0] + f"\n{line}\n")
    assert list(ClickLog(tmp_path).history(LIVER)) == ONE_BY_ONE[:1]
    assert "is damaged" in caplog.text


def test_without_a_folder_the_log_is_in_memory():
    log = ClickLog(None)
    fill(log)
    assert list(log.history(LIVER)) == ONE_BY_ONE


def test_a_folder_that_cannot_be_written_to_stops_no_click(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    log = ClickLog(tmp_path / "file" / "clicks")
    fill(log)
    assert list(log.history(LIVER)) == ONE_BY_ONE
    assert len(caplog.records) == 1


def test_logs_are_bounded(tmp_path):
    log = ClickLog(tmp_path, max_files=10)
    for number in range(25):
        log.add(Subject("ct.nii.gz", (number,), (1,), "liver", "anna"), ONE_BY_ONE[0])
        for age, file in enumerate(sorted(tmp_path.iterdir(), key=os.path.getmtime)):
            os.utime(file, (number + age, number + age))
    assert len(list(tmp_path.iterdir())) <= 10
    log = ClickLog(None)
    for number in range(MAX_ANSWERS + 5):
        log.add(LIVER, answered([Click((number, 0, 0))]))
    assert len(log.history(LIVER)) == MAX_ANSWERS


def test_with_an_image_its_logs_are_forgotten(tmp_path):
    log = ClickLog(tmp_path)
    other = Subject("mr.nii.gz", (1,), (1,), "liver", "anna")
    for subject in (LIVER, Subject("ct.nii.gz", (1,), (1,), "spleen", "bert"), other):
        fill(log, subject)
    log.forget("ct.nii.gz")
    assert not log.history(LIVER)
    assert list(log.history(other)) == ONE_BY_ONE
    assert len(list(tmp_path.iterdir())) == 1


def test_each_of_two_processes_knows_what_the_other_one_answered(tmp_path):
    logs = [ClickLog(tmp_path), ClickLog(tmp_path)]
    for answers, log in enumerate([*logs, logs[0]]):
        assert list(log.history(LIVER)) == ONE_BY_ONE[:answers]
        assert log.add(LIVER, ONE_BY_ONE[answers])
    for log in (*logs, ClickLog(tmp_path)):
        assert list(log.history(LIVER)) == ONE_BY_ONE


def test_of_two_answers_to_the_same_clicks_the_first_counts_for_both_processes(tmp_path, monkeypatch):
    one, other = ClickLog(tmp_path), ClickLog(tmp_path)
    for clicks in (answered([A]), answered([B])):
        one.add(LIVER, clicks)
    assert one.add(LIVER, answered([A, B], [A]))
    assert not other.add(LIVER, answered([A, B], [B]))
    assert other.add(LIVER, answered([A, B], [A]))

    write = other._write

    def a_moment_later(*arguments):
        one.add(LIVER, answered([A, B, C], [A, B]))
        write(*arguments)

    monkeypatch.setattr(other, "_write", a_moment_later)
    assert not other.add(LIVER, answered([A, B, C], [A]))
    for log in (one, other, ClickLog(tmp_path)):
        assert way_to(of(A, B, C), log.history(LIVER)) == [of(A), of(A, B), of(A, B, C)]


def test_what_was_made_from_answers_that_are_gone_is_not_logged(tmp_path):
    log = ClickLog(tmp_path)
    fill(log)
    next(tmp_path.iterdir()).unlink()
    assert not log.add(LIVER, answered([A, B, C, D], [A, B, C]))
    assert not ClickLog(tmp_path).history(LIVER)


def test_a_history_whose_file_was_removed_starts_anew(tmp_path):
    log = ClickLog(tmp_path, max_files=1)
    fill(log)
    fill(log, Subject("mr.nii.gz", (1,), (1,), "liver", "anna"))
    assert not log.history(LIVER)
    fill(log)
    assert list(ClickLog(tmp_path).history(LIVER)) == ONE_BY_ONE
