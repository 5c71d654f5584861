import json
import shutil

import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.errors import InvalidInput, NotFound, UnreadableVolume


class TestManifestFile:
    @pytest.fixture
    def folder(self, tmp_path, write_pair):
        for name in ("x", "y"):
            write_pair(tmp_path / "data" / f"{name}.nii.gz", tmp_path / "data" / f"{name}-mask.nii.gz")
        return tmp_path

    def test_csv_with_names_and_patients(self, folder, case_folder):
        shutil.copy(case_folder / "structures.json", folder)
        file = folder / "cases.csv"
        file.write_bytes(
            "\ufeffname, image, labels, patient\n"
            "late, data/y.nii.gz, data/y-mask.nii.gz, 17\n"
            "early,data/x.nii.gz,data/x-mask.nii.gz,17\n".encode()
        )
        early, late = find_cases(file)
        assert (early.name, early.patient, late.name, late.patient) == ("early", "17", "late", "17")
        assert early.load().structures == {"block": 1, "plane": 3}

    def test_csv_of_files_alone(self, folder):
        file = folder / "cases.csv"
        file.write_text("image,labels\ndata/x.nii.gz,data/x-mask.nii.gz\n")
        (source,) = find_cases(file)
        assert (source.name, source.patient, source.names) == ("x", "x", {})

    @pytest.mark.parametrize("number", [17, 0])
    def test_json_with_structures(self, folder, number):
        file = folder / "cases.json"
        case = {"image": "data/x.nii.gz", "labels": str(folder / "data" / "x-mask.nii.gz"), "patient": number}
        file.write_text(json.dumps({"structures": {"block": 1, "plane": 3}, "cases": [case]}))
        (source,) = find_cases(file)
        assert (source.name, source.patient) == ("x", str(number))
        assert source.load().structures == {"block": 1, "plane": 3}

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("image,mask\na.nii.gz,b.nii.gz\n", r"Case 1 of '.*' has no labels.*Name both files"),
            ("image,labels\n,b.nii.gz\n", r"Case 1 of '.*' has no image"),
            ("image,labels\na.nii.gz,1.nii.gz\nb/a.nii.gz,2.nii.gz\n", "Cases 1 and 2 .* both called 'a'. Give each"),
        ],
    )
    def test_incomplete_lists_are_refused(self, folder, text, fault):
        (folder / "cases.csv").write_text(text)
        with pytest.raises(InvalidInput, match=fault):
            find_cases(folder / "cases.csv")

    @pytest.mark.parametrize("text", ["[]", "{", '{"cases": 3}', '{"cases": [3]}', '{"structures": 3, "cases": []}'])
    def test_damaged_json_is_refused_with_the_form_to_write(self, folder, text):
        (folder / "cases.json").write_text(text)
        with pytest.raises(UnreadableVolume, match=r"cases.json'.* Write "):
            find_cases(folder / "cases.json")

    def test_csv_that_is_no_text_is_refused(self, folder):
        (folder / "cases.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UnreadableVolume, match=r"UnicodeDecodeError.* Write a line 'image,labels,name,patient'"):
            find_cases(folder / "cases.csv")

    def test_an_empty_list_holds_no_case(self, folder):
        (folder / "cases.csv").write_text("image,labels\n")
        with pytest.raises(NotFound, match="lists no labelled case"):
            find_cases(folder / "cases.csv")


def test_a_case_of_a_json_manifest_may_have_names_of_its_own(tmp_path):
    rows = [
        {"image": "a", "labels": "b", "name": "a"},
        {"image": "c", "labels": "d", "name": "c", "structures": {"x": 2}},
    ]
    (tmp_path / "cases.json").write_text(json.dumps({"structures": {"liver": 1}, "cases": rows}))
    first, second = find_cases(tmp_path / "cases.json")
    assert (first.names, second.names) == ({"liver": 1}, {"x": 2})


def test_names_of_a_case_that_are_no_names_are_not_passed_over(tmp_path):
    """The names of all cases would be taken for its own."""
    row = {"image": "a", "labels": "b", "structures": ["spleen"]}
    (tmp_path / "cases.json").write_text(json.dumps({"structures": {"liver": 1}, "cases": [row]}))
    with pytest.raises(UnreadableVolume, match=r"cases.json': .*'structures' is missing, or not an object\. Write "):
        find_cases(tmp_path / "cases.json")
