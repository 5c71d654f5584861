from deepgrow3d_app.serving.routes.model import _replace_checkpoint


def test_an_uploaded_checkpoint_leaves_the_one_before_it(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    served, upload = folder / "deepgrow3d.safetensors", tmp_path / "upload.safetensors"
    served.write_bytes(b"shipped")
    for _ in range(2):  # sent again, it does not push out the shipped one
        upload.write_bytes(b"trained")
        _replace_checkpoint(served, upload)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "deepgrow3d.safetensors": b"trained",
            "deepgrow3d.previous.safetensors": b"shipped",
        }


def test_a_checkpoint_that_was_taken_away_is_replaced_too(tmp_path):
    upload = tmp_path / "upload.safetensors"
    upload.write_bytes(b"trained")
    (tmp_path / "model").mkdir()
    _replace_checkpoint(tmp_path / "model" / "deepgrow3d.safetensors", upload)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["deepgrow3d.safetensors"]
