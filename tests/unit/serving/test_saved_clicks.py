import pytest

from deepgrow3d_app.click.click import Click
from deepgrow3d_app.serving.click_log import Answered
from deepgrow3d_app.serving.click_memory import Subject
from deepgrow3d_app.serving.file_version import file_version


def test_the_clicks_that_made_it_are_kept(datastore, save, log, studies):
    image = studies / "ct.nii.gz"
    for client in ("anna", "bert"):
        subject = Subject(str(image), file_version(image), (), "liver", f"/{client}")
        first = frozenset({Click((1, 2, 3))})
        log.add(subject, Answered(first, None))
        log.add(subject, Answered(first | {Click((3, 2, len(client)), False)}, first))
    save(1, client_id="anna", label_info=[{"name": "liver", "idx": 1}])
    (version,) = datastore.history.versions("ct", "final")
    assert {name: (clicks.foreground, clicks.background) for name, clicks in version.clicks.items()} == {
        "liver": ([(1, 2, 3)], [(3, 2, 4)])
    }


def test_whoever_signed_in_saves_the_clicks_of_nobody_else(datastore, save, log, studies):
    """Viewers may call themselves alike."""
    image = studies / "ct.nii.gz"
    for name, click in (("anna", Click((1, 2, 3))), ("bert", Click((3, 2, 1)))):
        subject = Subject(str(image), file_version(image), (), "liver", "/3D Slicer", name)
        log.add(subject, Answered(frozenset({click}), None))
    for name in ("anna", "bert", "carl"):
        save(1, client_id="3D Slicer", saved_by=name, label_info=[{"name": "liver", "idx": 1}])
    versions = datastore.history.versions("ct", "final")
    assert [(version.saved_by, clicks_of(version)) for version in versions] == [
        ("anna", {"liver": ([(1, 2, 3)], [])}),
        ("bert", {"liver": ([(3, 2, 1)], [])}),
        ("carl", {}),
    ]


def clicks_of(version):
    return {name: (clicks.foreground, clicks.background) for name, clicks in version.clicks.items()}


@pytest.fixture
def answered_click(log, studies):
    """What anna was answered last is a click at (1, 2, 3), in the liver."""
    image = studies / "ct.nii.gz"
    log.add(
        Subject(str(image), file_version(image), (), "liver", "/anna"), Answered(frozenset({Click((1, 2, 3))}), None)
    )


def test_the_clicks_that_a_viewer_sends_with_the_label_are_kept(datastore, save, answered_click):
    liver = {"foreground": [[1, 2, 3], [5, 6, 7]], "background": [[0, 0, 0]]}
    names = [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
    sent = {"liver": liver, "spleen": {"foreground": [], "background": []}}
    save(1, client_id="anna", label_info=names, click_sets=sent)
    save(1, client_id="anna", label_info=names, click_sets={})
    first, second = datastore.history.versions("ct", "final")
    assert clicks_of(first) == {"liver": ([(1, 2, 3), (5, 6, 7)], [(0, 0, 0)])}
    assert clicks_of(second) == {}
    assert "click_sets" not in first.info
    assert "click_sets" not in datastore.get_label_info("ct", "final")


@pytest.mark.parametrize(
    "sent",
    [
        "liver",
        {"liver": [[1, 2, 3]]},
        {"liver": {"foreground": [[1, 2, 3]]}},
        {"liver": {"foreground": [[1, 2]], "background": []}},
        {"liver": {"foreground": [[1, 2, 3.0]], "background": []}},
        {"liver": {"foreground": [["1", 2, 3]], "background": []}},
        {"liver": {"foreground": [[True, 2, 3]], "background": []}},
        {"liver": {"foreground": [[6, 2, 3]], "background": []}},
        {"liver": {"foreground": [], "background": [[0, -1, 0]]}},
        {"liver": {"foreground": [[1, 2, 3]] * 1001, "background": []}},
        {"liver": {"foreground": [[1, 2, 3]] * 501, "background": [[1, 2, 3]] * 500}},
        {"spleen": {"foreground": [[1, 2, 3]], "background": []}},
    ],
)
def test_malformed_clicks_are_left_out_of_the_history(datastore, save, answered_click, sent):
    save(1, client_id="anna", label_info=[{"name": "liver", "idx": 1}], click_sets=sent)
    (version,) = datastore.history.versions("ct", "final")
    assert clicks_of(version) == {"liver": ([(1, 2, 3)], [])}
    assert "click_sets" not in datastore.get_label_info("ct", "final")
