import json
import shutil

import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.layouts.btcv import BTCV_NAMES
from deepgrow3d_app.errors import InvalidInput, NotFound, UnreadableVolume, UnsupportedVolume


def _names(folder):
    return [case.name for case in find_cases(folder)]


class TestCaseFolder:
    def test_names_come_from_structures_json(self, case_folder):
        (source,) = find_cases(case_folder)
        assert (source.name, source.patient) == ("one", "one")
        assert source.load().structures == {"block": 1, "plane": 3}

    def test_without_names_values_are_called_labels(self, case_folder):
        (case_folder / "structures.json").unlink()
        (source,) = find_cases(case_folder)
        assert source.names == {}
        assert source.load().structures == {"label 1": 1, "label 3": 3}

    def test_the_folder_may_be_named_from_within(self, case_folder, monkeypatch):
        monkeypatch.chdir(case_folder)
        assert _names(case_folder.relative_to(case_folder)) == ["one"]

    @pytest.mark.parametrize(
        "content",
        [
            "{",
            "[]",
            "{}",
            '{"structures": [1]}',
            '{"structures": {"a": {"value": "x"}}}',
            pytest.param("[" * 100_000, id="deep"),
        ],
    )
    def test_damaged_names_are_refused_with_the_form_to_write(self, case_folder, content):
        (case_folder / "structures.json").write_text(content)
        with pytest.raises(UnreadableVolume, match=r"one/structures.json': .*Write "):
            find_cases(case_folder)

    @pytest.mark.parametrize(
        ("structures", "fault"),
        [
            ({"a": 0}, "'a' the value 0. Choose one from 1 to 255"),
            ({"a": 1.5}, "1.5 is no label value"),
            ({"a": float("inf")}, "inf is no label value"),
            ({"a": 4, "b": 4}, "'a' and 'b' the same value 4"),
        ],
    )
    def test_values_that_no_structure_can_have_are_refused(self, case_folder, structures, fault):
        (case_folder / "structures.json").write_text(json.dumps({"structures": structures}))
        with pytest.raises(InvalidInput, match=fault):
            find_cases(case_folder)

    def test_names_may_be_written_on_windows(self, case_folder):
        file = case_folder / "structures.json"
        file.write_bytes("\ufeff".encode() + file.read_bytes().replace(b" ", b"\r\n"))
        assert find_cases(case_folder)[0].names == {"block": 1, "plane": 3}

    def test_two_images_leave_it_open_which_one_is_meant(self, case_folder):
        (case_folder / "image.nrrd").touch()
        with pytest.raises(InvalidInput, match=r"'image.nii.gz' and 'image.nrrd'. Remove or rename one"):
            find_cases(case_folder)

    def test_a_segmentation_is_no_second_image(self, case_folder):
        (case_folder / "image.seg.nrrd").touch()
        assert find_cases(case_folder)[0].image == case_folder / "image.nii.gz"

    def test_the_image_may_be_a_dicom_series(self, case_folder):
        (case_folder / "image.nii.gz").unlink()
        (case_folder / "image").mkdir()
        assert find_cases(case_folder)[0].image == case_folder / "image"


class TestManyCaseFolders:
    def test_each_is_a_case_and_the_rest_is_passed_over(self, case_folder):
        shutil.copytree(case_folder, case_folder.with_name("two"))
        (case_folder.with_name("notes")).mkdir()
        (case_folder.with_name(".hidden")).mkdir()
        assert _names(case_folder.parent) == ["one", "two"]

    @pytest.mark.parametrize("missing", ["image", "labels"])
    def test_a_missing_half_is_named_when_the_case_is_loaded(self, case_folder, missing):
        """Passed over, nobody would notice that a patient is not trained on."""
        half = shutil.copytree(case_folder, case_folder.with_name("two"))
        (half / f"{missing}.nii.gz").unlink()
        assert _names(case_folder.parent) == ["one", "two"]
        with pytest.raises(UnreadableVolume, match=f"'{missing}.nii.gz': there is no such file"):
            find_cases(case_folder.parent)[1].load()

    def test_halves_alone_are_no_cases(self, case_folder):
        (case_folder / "labels.nii.gz").unlink()
        with pytest.raises(NotFound, match="it holds one/"):
            find_cases(case_folder.parent)

    def test_links_are_called_by_their_own_names(self, case_folder, tmp_path):
        """Archives call the folder of every patient alike."""
        links = tmp_path / "links"
        links.mkdir()
        for name in ("p1", "p2"):
            (links / name).symlink_to(case_folder)
        assert _names(links) == ["p1", "p2"]


class TestPairedFolders:
    @pytest.fixture
    def folder(self, tmp_path, write_pair):
        for name in ("b", "a", "c"):
            write_pair(tmp_path / "images" / f"{name}.nii.gz", tmp_path / "labels" / f"{name}.nii.gz")
        (tmp_path / "images" / "._a.nii.gz").touch()
        return tmp_path

    def test_pairs_are_sorted_by_name(self, folder):
        assert _names(folder) == ["a", "b", "c"]
        assert find_cases(folder)[0].load().structures == {"label 1": 1, "label 3": 3}

    def test_segmentations_that_slicer_left_beside_the_images_are_none(self, folder):
        for name in ("a", "Segmentation"):
            (folder / "images" / f"{name}.seg.nrrd").touch()
        assert _names(folder) == ["a", "b", "c"]

    def test_the_last_ones_are_held_out(self, folder):
        assert [case.name for case in find_cases(folder, held_out=2)] == ["b", "c"]

    @pytest.mark.parametrize("held_out", [0, 4])
    def test_there_are_no_more_to_hold_out_than_there_are(self, folder, held_out):
        with pytest.raises(InvalidInput, match=f"last {held_out} cases .* it has 3. Choose a number from 1 to 3"):
            find_cases(folder, held_out)

    @pytest.mark.parametrize("missing", ["images", "labels"])
    def test_a_missing_partner_is_named_when_the_case_is_loaded(self, folder, missing):
        (folder / missing / "b.nii.gz").unlink()
        with pytest.raises(UnreadableVolume, match=r"'b.nii.gz': there is no such file"):
            find_cases(folder)[1].load()

    @pytest.mark.parametrize("labels", [{"0": "background", "1": "block", "3": "plane"}, {"block": 1, "plane": 3}])
    def test_names_may_come_from_a_dataset_json(self, folder, labels):
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert find_cases(folder)[0].names == {"block": 1, "plane": 3}


class TestDecathlon:
    @pytest.fixture
    def folder(self, tmp_path, write_pair):
        for name in ("spleen_10", "spleen_2"):
            write_pair(tmp_path / "imagesTr" / f"{name}.nii.gz", tmp_path / "labelsTr" / f"{name}.nii.gz")
        files = ("spleen_10.nii.gz", "._spleen_10.nii.gz", "spleen_2.nii.gz")
        training = [{"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"} for file in files]
        labels = {"0": "background", "1": "block", "3": "plane"}
        content = {"labels": labels, "training": training, "test": ["./imagesTs/spleen_1.nii.gz"]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    def test_training_pairs_are_cases_and_mac_companions_are_not(self, folder):
        assert _names(folder) == ["spleen_10", "spleen_2"]
        assert find_cases(folder)[0].load().structures == {"block": 1, "plane": 3}

    def test_several_channels_are_refused_when_loaded(self, folder, write_nifti):
        write_nifti(np.zeros((8, 8, 8, 4), np.int16), folder / "imagesTr" / "spleen_2.nii.gz")
        with pytest.raises(UnsupportedVolume, match=r"spleen_2.nii.gz' cannot be used: it has 4 dimensions"):
            find_cases(folder)[1].load()

    @pytest.mark.parametrize("training", [3, ["a.nii.gz"], [{"image": "a.nii.gz"}], [{"image": 1, "label": 2}]])
    def test_a_damaged_list_is_refused_with_the_form_to_write(self, folder, training):
        (folder / "dataset.json").write_text(json.dumps({"labels": {"1": "a"}, "training": training}))
        with pytest.raises(UnreadableVolume, match=r"its 'training' is no list of pairs .*Write "):
            find_cases(folder)

    def test_two_images_of_one_name_are_refused(self, folder):
        pairs = [{"image": f"{place}/a.nii.gz", "label": "b.nii.gz"} for place in ("one", "two")]
        (folder / "dataset.json").write_text(json.dumps({"labels": {"1": "a"}, "training": pairs}))
        with pytest.raises(InvalidInput, match=r"one/a.nii.gz' and '.*two/a.nii.gz', which would both be the case 'a'"):
            find_cases(folder)

    def test_two_values_of_one_name_are_refused(self, folder):
        (folder / "dataset.json").write_text(json.dumps({"labels": {"1": "lesion", "2": "lesion"}, "training": []}))
        with pytest.raises(InvalidInput, match="calls both 1 and 2 'lesion'"):
            find_cases(folder)

    def test_regions_of_several_values_are_refused(self, folder):
        (folder / "dataset.json").write_text(json.dumps({"labels": {"tumour": [1, 3]}, "training": []}))
        with pytest.raises(UnreadableVolume, match=r"dataset.json': TypeError.* Write "):
            find_cases(folder)


def test_btcv_pairs_are_found_by_number_and_named_as_in_the_challenge(tmp_path, write_pair):
    for number in ("0002", "0001"):
        write_pair(tmp_path / "img" / f"img{number}.nii.gz", tmp_path / "label" / f"label{number}.nii.gz")
    assert _names(tmp_path) == ["img0001", "img0002"]
    assert find_cases(tmp_path)[0].load().structures == {"spleen": 1, "left kidney": 3}
    assert list(BTCV_NAMES.values()) == list(range(1, 14))


class TestStudies:
    @pytest.fixture
    def folder(self, tmp_path, write_pair):
        for name in ("ct-b", "ct-a", "ct-c"):
            write_pair(tmp_path / f"{name}.nii.gz", tmp_path / "labels" / "final" / f"{name}.nii.gz")
        (tmp_path / "labels" / "final" / "ct-c.nii.gz").unlink()
        (tmp_path / "labels" / "original").mkdir()
        return tmp_path

    @staticmethod
    def _write_index(folder, label_info, **more):
        final = {"ext": ".nii.gz", "info": {"label_info": label_info}}
        index = {"objects": {"ct-a": {"image": {"ext": ".nii.gz"}, "labels": {"final": final}}}, **more}
        (folder / "datastore_v2.json").write_text(json.dumps(index))

    def test_images_with_a_final_label_are_cases(self, folder):
        assert _names(folder) == ["ct-a", "ct-b"]

    def test_segmentations_may_lie_beside_the_images_and_be_labels(self, folder):
        (folder / "ct-a.seg.nrrd").touch()
        final = folder / "labels" / "final"
        (final / "ct-b.nii.gz").rename(final / "ct-b.seg.nrrd")
        assert [(case.image.name, case.labels.name) for case in find_cases(folder)] == [
            ("ct-a.nii.gz", "ct-a.nii.gz"),
            ("ct-b.nii.gz", "ct-b.seg.nrrd"),
        ]

    def test_names_are_those_that_came_with_the_label(self, folder):
        self._write_index(folder, [{"name": "block", "idx": 1, "color": [1, 2, 3]}, {"name": "plane", "idx": 3}])
        a, b = find_cases(folder)
        assert a.load().structures == {"block": 1, "plane": 3}
        assert b.names == {}

    @pytest.mark.parametrize(
        "label_info",
        [
            None,
            "x",
            [1],
            [{"name": "a"}],
            [{"name": "a", "idx": "x"}],
            [{"name": "a", "idx": 0}],
            [{"name": "a", "idx": 1.5}],
            [{"name": "a", "idx": float("inf")}],
            [{"name": "a", "idx": 1}, {"name": "a", "idx": 2}],
            [{"name": "a", "idx": 1}, {"name": "b", "idx": 1}],
        ],
    )
    def test_what_names_nothing_plainly_does_not_keep_the_case_from_being_used(self, folder, label_info):
        self._write_index(folder, label_info)
        assert find_cases(folder)[0].names == {}

    def test_the_index_may_say_where_images_and_labels_lie(self, folder):
        self._write_index(folder, [], images_dir="scans", labels_dir="masks")
        (folder / "labels").rename(folder / "masks")
        (folder / "scans").mkdir()
        for image in folder.glob("*.nii.gz"):
            image.rename(folder / "scans" / image.name)
        assert _names(folder) == ["ct-a", "ct-b"]

    def test_without_final_labels_there_is_nothing_to_use(self, folder):
        shutil.rmtree(folder / "labels")
        self._write_index(folder, [])
        with pytest.raises(NotFound, match=r"None of the 3 images in the studies .* Save labels first"):
            find_cases(folder)

    def test_a_damaged_index_is_refused(self, folder):
        (folder / "datastore_v2.json").write_text("{")
        with pytest.raises(UnreadableVolume, match=r"datastore_v2.json'"):
            find_cases(folder)


class TestNothingFound:
    def test_layouts_are_named_with_what_lies_there(self, tmp_path):
        for name in ("scan.nii.gz", ".DS_Store"):
            (tmp_path / name).touch()
        (tmp_path / "a").mkdir()
        with pytest.raises(
            NotFound, match=r"it holds a/, scan.nii.gz. Lay it out as one of: .*images/ and labels/.*BTCV"
        ):
            find_cases(tmp_path)

    def test_many_entries_are_cut_short(self, tmp_path):
        for number in range(11):
            (tmp_path / f"{number:02}.dcm").touch()
        with pytest.raises(NotFound, match=r"04.dcm and 6 more"):
            find_cases(tmp_path)

    def test_another_file(self, tmp_path):
        (tmp_path / "a.txt").touch()
        with pytest.raises(NotFound, match=r"'a.txt' lists no labelled cases. Name one of these"):
            find_cases(tmp_path / "a.txt")

    def test_no_such_folder(self, tmp_path):
        with pytest.raises(NotFound, match="There is no folder"):
            find_cases(tmp_path / "nowhere")
