import json
import shutil

import numpy as np
import pytest

from deepgrow3d_app.cases.folders import find_cases
from deepgrow3d_app.cases.prepare import prepare_cases
from deepgrow3d_app.errors import InvalidInput, LabelMismatch, UnreadableVolume
from tests.unit.cases.conftest import files_of


class TestDamagedPreparedFolder:
    @pytest.fixture
    def prepared(self, pairs, output):
        prepare_cases(find_cases(pairs), output, None)
        return output

    def test_the_manifest_may_be_named_itself(self, prepared):
        assert find_cases(prepared / "manifest.json") == find_cases(prepared)

    def test_a_later_version(self, prepared):
        manifest = json.loads((prepared / "manifest.json").read_text())
        (prepared / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
        with pytest.raises(
            InvalidInput, match=r"is of version 2, this program reads version 1. Update this program, or prepare"
        ):
            find_cases(prepared)

    @pytest.mark.parametrize(
        "change",
        [
            {"spacing_mm": 3},
            {"structures": []},
            {"structures": {"a": float("inf")}},
            {"cases": [{"split": "test"}]},
            {"cases": [{"name": "a", "patient": "a", "split": "training", "folder": 2}]},
        ],
    )
    def test_a_damaged_manifest(self, prepared, change):
        manifest = json.loads((prepared / "manifest.json").read_text())
        (prepared / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UnreadableVolume, match=r"manifest.json': .* Prepare the cases again"):
            find_cases(prepared)

    @pytest.mark.parametrize("content", ["{", '{"format": "deepgrow3d-cases", "version": 1}'])
    def test_preparing_again_mends_a_damaged_manifest(self, pairs, prepared, content):
        whole = files_of(prepared)
        (prepared / "manifest.json").write_text(content)
        assert prepare_cases(find_cases(pairs), prepared, None).new == 0
        assert files_of(prepared) == whole

    def test_another_manifest_json_is_no_prepared_folder(self, case_folder):
        (case_folder / "manifest.json").write_text("{}")
        assert find_cases(case_folder)[0].name == "one"

    @pytest.mark.parametrize("file", ["image.npy", "labels.npy", "case.json"])
    def test_a_damaged_or_missing_file(self, prepared, file):
        (source, *_) = find_cases(prepared)
        (prepared / "cases" / "a" / file).write_bytes(b"{")
        with pytest.raises(UnreadableVolume, match=f"{file}': .* Delete its folder and prepare the cases again"):
            source.load()
        (prepared / "cases" / "a" / file).unlink()
        with pytest.raises(UnreadableVolume, match=file):
            source.load()

    def test_arrays_of_other_types_and_shapes(self, prepared):
        (source, *_) = find_cases(prepared)
        np.save(source.labels, np.zeros((8, 8, 7), np.uint8))
        with pytest.raises(LabelMismatch, match=r"shape \(8, 8, 7\), its image \(8, 8, 8\)"):
            source.load()
        np.save(source.image, np.zeros((8, 8, 8), np.float32))
        with pytest.raises(UnreadableVolume, match=r"holds float32 \(8, 8, 8\), not int16"):
            source.load()

    def test_the_folder_may_be_moved(self, prepared):
        shutil.move(prepared, prepared.with_name("moved"))
        assert find_cases(prepared.with_name("moved"))[0].load().structures == {"block": 1, "plane": 3}
