from pathlib import Path

import pytest
from monailabel.config import Settings

from deepgrow3d_app.errors import InvalidRequest
from deepgrow3d_app.serving.dicomweb.address import DicomWebAddress, is_address


def settings(**values):
    return Settings(_env_file=None, **values)


def test_credentials_in_the_address_are_taken_out_of_it():
    address = DicomWebAddress.of("https://ann:p%40ss@pacs.example:8443/dicom-web/", settings())
    assert address.url == "https://pacs.example:8443/dicom-web"
    assert (address.username, address.password) == ("ann", "p@ss")
    assert "p@ss" not in repr(address)


def test_settings_come_before_the_address():
    address = DicomWebAddress.of(
        "http://ann:one@pacs/dw", settings(MONAI_LABEL_DICOMWEB_USERNAME="bob", MONAI_LABEL_DICOMWEB_PASSWORD="two")
    )
    assert (address.username, address.password) == ("bob", "two")


def test_prefixes_are_parts_of_paths():
    address = DicomWebAddress.of(
        "http://pacs",
        settings(MONAI_LABEL_QIDO_PREFIX="/qido/", MONAI_LABEL_WADO_PREFIX="wado", MONAI_LABEL_STOW_PREFIX=None),
    )
    assert (address.qido_prefix, address.wado_prefix, address.stow_prefix) == ("qido", "wado", "")


def test_ct_and_mr_are_the_studies_unless_a_filter_says_otherwise():
    assert DicomWebAddress.of("http://pacs", settings()).filters == ({"Modality": "CT"}, {"Modality": "MR"})
    chosen = settings(MONAI_LABEL_DICOMWEB_SEARCH_FILTER={"PatientID": "trial-1"})
    assert DicomWebAddress.of("http://pacs", chosen).filters == ({"PatientID": "trial-1"},)


@pytest.mark.parametrize("given", ["ftp://pacs/dicom", "http://", "https:///dicom-web"])
def test_what_is_no_address(given):
    with pytest.raises(InvalidRequest, match="is no address"):
        DicomWebAddress.of(given, settings())


def test_a_refused_address_does_not_show_its_password():
    with pytest.raises(InvalidRequest) as refusal:
        DicomWebAddress.of("ftp://ann:secret@pacs", settings())
    assert "secret" not in str(refusal.value)


def test_folders_and_addresses():
    assert is_address("HTTP://pacs/dicom-web")
    assert not is_address("/data/http:/studies")


def test_servers_have_folders_of_their_own(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    one = DicomWebAddress("http://127.0.0.1:8042/dicom-web")
    two = DicomWebAddress("http://127.0.0.1:8042/dicom/web")
    assert one.folder() == Path("/data/deepgrow3d")
    assert one.folder_name != two.folder_name
    assert one.folder_name.startswith("127.0.0.1-8042-dicom-web-")
