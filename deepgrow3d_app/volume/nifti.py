"""NIfTI-1 and NIfTI-2 in one file (``.nii``, ``.nii.gz``).

nibabel parses and builds the header; the voxels are read here. Its own reader allocates what a
header claims, and logs to the console what it mends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from deepgrow3d_app.errors import UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.compression import deflate, inflate
from deepgrow3d_app.volume.geometry import Affine, spacing_mm
from deepgrow3d_app.volume.stored import StoredVoxels, check_dtype, check_shape
from deepgrow3d_app.volume.volume import Mask

NIFTI1_HEADER: Any = nib.Nifti1Header  # nibabel's methods carry no types
NIFTI2_HEADER: Any = nib.Nifti2Header
NIFTI1_HEADER_BYTES = 348
NIFTI2_HEADER_BYTES = 540
FIRST_VOXEL_BYTE = 352  # the NIfTI-1 header and four bytes that say "no extensions"
MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # codes of metre and micron; everything else counts as mm
PIXDIM_TOLERANCE = 1e-3
SAME_FORM_TOLERANCE = 1e-4
"""How far elements of two affines that are alike may differ, in the file's unit: ITK's bound."""


def read_nifti(path: Path) -> StoredVoxels:
    """Voxels and grid of ``path``, in the place where ITK, and so 3D Slicer, shows it.

    The affine is the sform where its code is 1 (scanner), there is no qform, or that differs in no more than
    the way that k runs, else the qform, else the bare voxel size: i to the left, j to the back, k upwards,
    from the origin. Metres and microns become mm. nibabel would take the sform whenever there is one, which puts a
    file with two different placements elsewhere than the viewer that the clicks and masks are for.

    Raises:
        UnreadableVolume: not NIfTI, damaged, truncated, or a header that promises more than the file holds.
        UnsupportedVolume: not three dimensions, colours, complex numbers, too large.
        OSError: the file cannot be opened.
    """
    name = path.name
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        if is_gzip != name.lower().endswith(".gz"):
            is_what, should_be = ("gzip", ".nii.gz") if is_gzip else ("not gzip", ".nii")
            raise UnreadableVolume(name, f"it is {is_what} inside", f"If it is NIfTI, name it '{should_be}'.")
        file.seek(0)
        header = _parse_header(_first_bytes(file, is_gzip, name), name)
        # The header comes from outside: whatever nibabel stumbles over, the header is what is wrong.
        try:
            with np.errstate(all="ignore"):
                sizes = tuple(int(n) for n in header.get_data_shape())
                dtype = header.get_data_dtype()
                offset = int(header.get_data_offset())
                slope, intercept = header.get_slope_inter()
                affine = _affine(header)
        except Exception as error:
            raise UnreadableVolume(name, f"its header is damaged ({error})") from error
        shape = check_shape(sizes, name)
        check_dtype(dtype, name)
        if offset < FIRST_VOXEL_BYTE:
            raise UnreadableVolume(name, f"its header is damaged (voxels at byte {offset}, within the header)")
        n_voxels = shape[0] * shape[1] * shape[2]
        n_bytes = offset + n_voxels * dtype.itemsize
        file.seek(0)
        if is_gzip:
            values = np.frombuffer(inflate(file, n_bytes, name), dtype, n_voxels, offset)
        else:
            n_there = os.fstat(file.fileno()).st_size
            if n_there < n_bytes:
                raise UnreadableVolume(name, f"it is truncated: it has {n_there} bytes of {n_bytes}")
            values = np.fromfile(file, dtype, n_voxels, offset=offset)
    return StoredVoxels(
        values, shape, affine, 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    )


def encode_nifti(
    voxels: Mask | npt.NDArray[np.int16],
    affine: Affine,
    *,
    compress: bool,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> bytes:
    """A NIfTI-1 file of ``voxels`` (i, j, k) on the grid of ``affine`` (index to mm, RAS+).

    sform and qform hold the affine with code 1 (scanner); a sheared one, which a qform cannot say,
    goes into the sform alone.
    """
    header = NIFTI1_HEADER()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(slope, intercept)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    try:
        header.set_qform(affine, 1, strip_shears=False)
    except HeaderDataError:
        header.set_zooms(spacing_mm(affine))
        header.set_qform(None, 0)
    header["vox_offset"] = FIRST_VOXEL_BYTE
    head = header.binaryblock.ljust(FIRST_VOXEL_BYTE, b"\0")
    body = np.ravel(voxels, order="F").view(np.uint8).data
    return deflate(head, body) if compress else head + body


def _affine(header: Any) -> Affine:
    """Voxel index to mm in RAS+, by the rules of :func:`read_nifti`.

    As in ITK, voxels have the size that ``pixdim`` states where an sform implies another one. Unlike
    in ITK, a size that is missing or negative leaves the sform as it is, and so does shear, which an
    ITK image cannot have.
    """
    qform_code, sform_code = int(header["qform_code"]), int(header["sform_code"])
    sizes = np.array(header["pixdim"][1:4], np.float64)
    sform = np.array(header.get_sform(), np.float64)
    qform = _qform(header) if qform_code > 0 and sform_code != 1 else None
    if sform_code == 1 or (sform_code > 0 and (qform is None or _differ_in_qfac_alone(sform, qform))):
        affine = sform
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        is_other = (sizes > 0) & np.isfinite(sizes) & (lengths > 0) & np.isfinite(lengths)
        is_other &= np.abs(sizes - lengths) > PIXDIM_TOLERANCE * lengths
        affine[:3, :3][:, is_other] *= (sizes / lengths)[is_other]
    elif qform is not None:
        affine = qform
    else:
        affine = np.diag((-sizes[0], -sizes[1], sizes[2], 1.0))
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


def _qform(header: Any) -> Affine:
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 is common, and nibabel refuses it
    return np.array(header.get_qform(), np.float64)


def _differ_in_qfac_alone(sform: Affine, qform: Affine) -> bool:
    """Whether the two are the same, but that k may run the other way.

    A qfac (``pixdim[0]``) that is missing or wrong mirrors the qform along k. ITK then takes the sform where axes are
    parallel to the world's; with oblique ones, that depends on the signs that a decomposition happens to have.
    """
    others = (qform, qform * (1.0, 1.0, -1.0, 1.0))
    return any(np.allclose(sform, other, rtol=0, atol=SAME_FORM_TOLERANCE) for other in others)


def _first_bytes(file: BinaryIO, is_gzip: bool, name: str) -> bytes:
    """The file's first bytes, decompressed: enough for either header, fewer where the file is shorter."""
    if not is_gzip:
        return file.read(NIFTI2_HEADER_BYTES)
    try:
        return bytes(inflate(file, NIFTI2_HEADER_BYTES, name))
    except UnreadableVolume:  # a tiny NIfTI-1 volume may end before byte 540
        file.seek(0)
        return bytes(inflate(file, NIFTI1_HEADER_BYTES, name))


def _parse_header(head: bytes, name: str) -> Any:
    """The nibabel header that ``head`` starts with."""
    if head[4:8] in (b"n+2\0", b"ni2\0"):
        kind, n_bytes, is_pair = NIFTI2_HEADER, NIFTI2_HEADER_BYTES, head[4:8] == b"ni2\0"
    elif head[344:348] in (b"n+1\0", b"ni1\0"):
        kind, n_bytes, is_pair = NIFTI1_HEADER, NIFTI1_HEADER_BYTES, head[344:348] == b"ni1\0"
    else:
        raise UnreadableVolume(name, "it does not start with a NIfTI header", "Check that it is a complete NIfTI file.")
    if is_pair:
        raise UnsupportedVolume(name, "it is one half of a .hdr/.img pair", "Save it as a single .nii or .nii.gz file.")
    try:
        return kind(head[:n_bytes], check=False)
    except Exception as error:
        raise UnreadableVolume(name, f"its header is damaged ({error})") from error
