"""``/datastore``: images and labels of the studies."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from deepgrow3d_app.errors import InvalidRequest, NotFound
from deepgrow3d_app.serving.access import ADMIN, ANNOTATOR, REVIEWER, USER, FileWorkers, Served, SignedIn, require
from deepgrow3d_app.serving.app import DeepGrow3DApp
from deepgrow3d_app.serving.data_set import FINAL, write_data_set
from deepgrow3d_app.serving.file_version import content_digest
from deepgrow3d_app.serving.identifiers import checked_name, shown
from deepgrow3d_app.serving.json_text import parse_object
from deepgrow3d_app.serving.label_grid import RAW_EXTENSION
from deepgrow3d_app.serving.label_history import SAVED_BY, LabelVersion
from deepgrow3d_app.serving.labelled_cases import REVIEW, reviewed_as
from deepgrow3d_app.serving.security.audit import tell_subject
from deepgrow3d_app.serving.security.identity import Identity, Role
from deepgrow3d_app.serving.studies_index import IMAGE_EXTENSIONS
from deepgrow3d_app.serving.uploads import Upload
from deepgrow3d_app.volume.files import EXTENSIONS

router = APIRouter(prefix="/datastore", tags=["Datastore"])

DIGESTS = ("SHA256", "SHA512", "MD5")


class SavedLabel(BaseModel):
    """What became of a label that was sent."""

    image: str
    label: str
    version: int
    notice: str | None = Field(description="where somebody else had saved the label before")


class ImageGeometry(BaseModel):
    """Where the voxels of an image lie. Formats leave room for several readings: this is the server's."""

    shape: tuple[int, int, int] = Field(description="voxels along i, j, k")
    spacing_mm: tuple[float, float, float]
    affine: list[list[float]] = Field(description="4 x 4, voxel index to mm in RAS+")


Params = Annotated[str, Form(description="a JSON object")]


@router.get("/", dependencies=USER)
def datastore(served: Served, output: Literal["stats", "all", "train"] = "stats") -> Any:
    """Images and labels, or how many there are."""
    images = served.images()
    if output == "all":
        return images.json()
    return images.datalist() if output == "train" else images.status()


@router.put("/", include_in_schema=False, dependencies=ANNOTATOR)
@router.put("/image", dependencies=ANNOTATOR)
async def add_image(
    served: Served,
    workers: FileWorkers,
    caller: SignedIn,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Params = "{}",
) -> dict[str, str]:
    """Add an image; to replace one takes an admin."""
    info = parse_object(params or "{}", "params")
    return {"image": await workers.run(_add_image, served, caller, image or "", Upload.of(file), info)}


def _add_image(served: DeepGrow3DApp, caller: Identity, image: str, upload: Upload, info: dict[str, Any]) -> str:
    if upload.extension not in IMAGE_EXTENSIONS:
        raise InvalidRequest(f"{shown(upload.name)} is no image. Send one of {', '.join(IMAGE_EXTENSIONS)}.")
    image_id = checked_name(image or upload.stem, "an image id")
    tell_subject("image", image_id)  # it may be the name of the file

    def may_replace() -> None:
        require(caller, Role.ADMIN)  # its voxels would be lost

    if image_id in served.images().list_images():
        may_replace()
    with upload.staged(served.incoming, image_id + upload.extension) as path:
        return served.images().add_image(image_id, str(path), info, may_replace)


@router.delete("/", include_in_schema=False, dependencies=ADMIN)
@router.delete("/image", dependencies=ADMIN)
def remove_image(served: Served, id: str) -> dict[str, Any]:
    """Remove an image and its labels."""
    served.images().remove_image(id)
    return {}


@router.head("/image", dependencies=USER)
def check_image(served: Served, image: str, check_sum: str | None = None) -> dict[str, Any]:
    """Whether an image exists, and is what the caller has."""
    path = served.images().image_download(image)
    if check_sum:
        algorithm, _, digest = check_sum.rpartition(":")
        algorithm = algorithm or "SHA256"
        if algorithm not in DIGESTS:
            raise InvalidRequest(f"The checksum's method is {shown(algorithm)}. Choose one of {', '.join(DIGESTS)}.")
        if digest != content_digest(path, algorithm):
            raise NotFound(f"The image {shown(image)} has another checksum.")
    return {}


@router.get("/image", dependencies=USER)
def image_file(served: Served, image: str) -> FileResponse:
    """An image's file; its `ETag` is another one whenever the image is."""
    etag = served.images().image_etag(image)  # before the file: if that is replaced now, the older one is refused later
    return _download(served.images().image_download(image), {"etag": f'"{etag}"'})


@router.get("/image/info", dependencies=USER)
def image_info(served: Served, image: str) -> Any:
    """What is known of an image."""
    served.images().image_file(image)
    return served.images().get_image_info(image)


@router.get("/image/geometry", dependencies=USER)
async def image_geometry(served: Served, workers: FileWorkers, image: str) -> ImageGeometry:
    """Where an image's voxels lie, as clicks and labels are understood."""
    volume = await workers.run(lambda: served.volumes.get(served.images().image_file(image)))
    return ImageGeometry(shape=volume.shape, spacing_mm=volume.spacing_mm, affine=volume.affine.tolist())


@router.put("/image/info", dependencies=ANNOTATOR)
def update_image_info(served: Served, image: str, info: Params = "{}") -> None:
    """Add to what is known of an image."""
    served.images().update_image_info(image, parse_object(info, "info"))


@router.put("/label", dependencies=ANNOTATOR)
async def save_label(
    served: Served,
    workers: FileWorkers,
    caller: SignedIn,
    image: str,
    label: Annotated[UploadFile, File(description="on the grid of the image; as .bin: its voxels, one byte each")],
    params: Params = "{}",
    tag: str = FINAL,
) -> SavedLabel:
    """Save a label, as a new version: earlier ones are kept.

    `params`: `{"label_info": [{"name": "liver", "idx": 1}], "client_id": "..."}`. With `"based_on": VERSION` the label
    is refused (409) where somebody saved another version meanwhile; without it, `notice` tells of that. With
    `"image_etag"`, the `ETag` of `GET /datastore/image` without its quotes, it is refused where the image was replaced.
    With `"click_sets": {"liver": {"foreground": [[i, j, k]], "background": []}}` the history has these clicks; without
    them, or where they are malformed, those that were last answered to `client_id`.
    """
    info = parse_object(params or "{}", "params")
    info.pop(SAVED_BY, None)
    if REVIEW in info:
        require(caller, Role.REVIEWER)
    if caller.name:
        info[SAVED_BY] = caller.name
    return await workers.run(_save_label, served, image, tag or FINAL, Upload.of(label), info)


def _save_label(served: DeepGrow3DApp, image: str, tag: str, upload: Upload, info: dict[str, Any]) -> SavedLabel:
    extension = RAW_EXTENSION if upload.name.lower().endswith(RAW_EXTENSION) else upload.extension
    if not extension:
        raise InvalidRequest(
            f"{shown(upload.name)} is no label. Send one of {', '.join((*EXTENSIONS, RAW_EXTENSION))}."
        )
    images = served.images()
    images.image_file(image)
    with upload.staged(served.incoming, f"label{extension}") as path:
        saved = images.save_version(image, str(path), tag, info)
    served.on_save_label(image, image)
    earlier = [version for version in images.history.versions(image, tag) if version.number < saved.number]
    return SavedLabel(image=image, label=image, version=saved.number, notice=_notice(earlier, saved))


def _notice(before: Sequence[LabelVersion], saved: LabelVersion) -> str | None:
    """What whoever saved a version should know: that somebody else had saved the one before."""
    if not before or before[-1].by == saved.by:
        return None
    earlier = before[-1]
    by = shown(earlier.by) if earlier.by else "somebody else"
    ago = max(0, round((saved.saved - earlier.saved) / 60))
    return (
        f"{by} had saved this label {ago} minutes before, as version {earlier.number}. Yours is version "
        f"{saved.number} and counts; the earlier one is kept."
    )


@router.delete("/label", dependencies=REVIEWER)
def remove_label(served: Served, id: str, tag: str) -> dict[str, Any]:
    """Remove a label."""
    served.images().remove_label(id, tag)
    return {}


@router.head("/label", dependencies=USER)
def check_label(served: Served, image: str, tag: str) -> dict[str, Any]:
    """Whether a label exists."""
    served.images().label_file(image, tag)
    return {}


@router.get("/label", dependencies=USER)
async def label_file(
    served: Served, workers: FileWorkers, label: str, tag: str, output: Literal["file", "uint8"] = "file"
) -> Response:
    """A label's file; with `output=uint8` as .nii.gz, a byte for each voxel of the image, whatever the file is."""
    images = served.images()
    if output == "file":
        return _download(await workers.run(images.label_file, label, tag))
    content = await workers.run(images.label_on_image, label, tag)
    return Response(content, media_type="application/gzip")


@router.get("/label/info", dependencies=USER)
def label_info(served: Served, label: str, tag: str) -> Any:
    """What is known of a label."""
    served.images().label_file(label, tag)
    return served.images().get_label_info(label, tag)


@router.get("/label/versions", dependencies=USER)
def label_versions(served: Served, label: str, tag: str = FINAL) -> list[LabelVersion]:
    """Every version of a label: who saved it, when, with which network and which clicks; the oldest first."""
    served.images().image_file(label)
    return served.images().history.versions(label, tag)


@router.get("/label/version", dependencies=USER)
def label_version(served: Served, label: str, version: int, tag: str = FINAL) -> FileResponse:
    """The label map of a version."""
    served.images().image_file(label)
    return _download(served.images().history.file(label, tag, version))


@router.put("/label/info", dependencies=ANNOTATOR)
def update_label_info(served: Served, caller: SignedIn, label: str, tag: str, info: Params = "{}") -> None:
    """Add to what is known of a label; a review, or a reviewed label, takes a reviewer."""
    _add_to_label(served, caller, label, tag, parse_object(info, "info"))


@router.put("/updatelabelinfo", include_in_schema=False, dependencies=ANNOTATOR)
def update_label_params(served: Served, caller: SignedIn, label: str, tag: str, params: Params = "{}") -> None:
    """Add to what is known of a label, as older clients do."""
    _add_to_label(served, caller, label, tag, parse_object(params, "params"))


def _add_to_label(served: DeepGrow3DApp, caller: Identity, label: str, tag: str, info: dict[str, Any]) -> None:
    def may_change(known: Mapping[str, Any]) -> None:
        if REVIEW in info or reviewed_as(known):
            require(caller, Role.REVIEWER)  # what was approved stays: a name says what is learnt from voxels

    served.images().get_label_info(label, tag)  # a DICOMweb server may have a newer one
    served.images().update_label_info(label, tag, {key: info[key] for key in info if key != SAVED_BY}, may_change)


@router.get("/dataset", dependencies=ANNOTATOR)
async def dataset(
    served: Served, workers: FileWorkers, limit_cases: Annotated[int | None, Query(ge=1)] = None
) -> FileResponse:
    """Images with final labels, as a zip archive."""
    archive = await workers.run(_data_set, served, limit_cases)
    return _SentOnce(archive, media_type="application/zip", filename="dataset.zip")


def _data_set(served: DeepGrow3DApp, limit_cases: int | None) -> Path:
    with served.incoming.new_file(".zip") as archive:
        write_data_set(served.images(), archive, limit_cases)
    return archive


class _SentOnce(FileResponse):
    """A file that is removed once it was sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


def _download(path: Path, headers: Mapping[str, str] | None = None) -> FileResponse:
    media_type = mimetypes.guess_type(path, strict=False)[0] or "application/octet-stream"
    return FileResponse(path, media_type=media_type, filename=path.name, headers=headers)
