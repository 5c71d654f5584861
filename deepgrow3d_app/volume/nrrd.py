"""NRRD with its voxels attached (``.nrrd``, ``.seg.nrrd``): a text header, a blank line, the bytes.

Read and written here rather than by a library, for what each would do with a file from outside:
SimpleITK allocates what the header claims and prints warnings, pynrrd decompresses without a
bound, and both open whatever path a ``data file`` field names. The part of the format that
3D Slicer, ITK and OHIF write fits on this page; the rest is refused by name.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from deepgrow3d_app.errors import UnreadableVolume, UnsupportedVolume
from deepgrow3d_app.volume.compression import deflate, inflate
from deepgrow3d_app.volume.geometry import Affine
from deepgrow3d_app.volume.stored import StoredVoxels, check_shape
from deepgrow3d_app.volume.volume import Mask

MAX_HEADER_BYTES = 1 << 22  # a segmentation of 100 structures takes about 50 kB

TYPES = {
    name: dtype
    for dtype, names in {
        "i1": "signed char,int8,int8_t",
        "u1": "uchar,unsigned char,uint8,uint8_t",
        "i2": "short,short int,signed short,signed short int,int16,int16_t",
        "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
        "i4": "int,signed int,int32,int32_t",
        "u4": "uint,unsigned int,uint32,uint32_t",
        "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
        "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(",")
}

TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
}
"""Sign of each world axis that turns a NRRD space into RAS+."""


SKIPS = ("byte skip", "byteskip", "line skip", "lineskip")


def read_nrrd(path: Path) -> StoredVoxels:
    """Voxels and grid of ``path``.

    Axes without a space direction (channels, Slicer's overlapping layers) are dropped where they
    have one step. A file that names no space is taken as left-posterior-superior, as ITK takes it.

    Raises:
        UnreadableVolume: not NRRD, damaged, truncated, or a header that promises more than the file holds.
        UnsupportedVolume: not three dimensions, a detached data file, an encoding other than raw
            and gzip, another space than LPS, RAS or LAS, no voxel size, too large.
        OSError: the file cannot be opened.
    """
    name = path.name
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
        fields, n_header_bytes = _parse_header(head, name)
        if "data file" in fields or "datafile" in fields:
            raise UnsupportedVolume(name, "its voxels lie in another file", "Save it as one .nrrd file.")
        try:
            dtype = np.dtype(TYPES[fields["type"].lower()])
            sizes = tuple(int(n) for n in fields["sizes"].split())
            if len(sizes) != int(fields["dimension"]):
                raise ValueError("sizes and dimension disagree")
            if dtype.itemsize > 1:
                dtype = np.dtype({"little": "<", "big": ">"}[fields["endian"].lower()] + dtype.str[1:])
            directions = _directions(fields, len(sizes))
            origin = _vectors(fields.get("space origin", "(0,0,0)"))[0] or (math.nan,) * 3
            if len(origin) != 3:
                raise ValueError(f"the space origin has {len(origin)} numbers")
            encoding = fields["encoding"].lower()
        except (KeyError, ValueError, IndexError) as error:
            raise UnreadableVolume(name, f"its header is damaged or incomplete ({error})") from error
        if encoding not in ("raw", "gzip", "gz") or any(fields.get(skip, "0") != "0" for skip in SKIPS):
            raise UnsupportedVolume(
                name, f"its voxels are stored as '{encoding}' or behind skipped bytes", "Save it with gzip encoding."
            )
        world_axes = [axis for axis, direction in enumerate(directions) if direction is not None]
        if len(world_axes) != 3 or any(n != 1 for axis, n in enumerate(sizes) if axis not in world_axes):
            raise UnsupportedVolume(
                name,
                f"it has {len(sizes)} dimensions {sizes}",
                "Send one 3-D image; in 3D Slicer, collapse the layers of a segmentation or export it as a label map.",
            )
        shape = check_shape(tuple(sizes[axis] for axis in world_axes), name)
        n_voxels = shape[0] * shape[1] * shape[2]
        file.seek(n_header_bytes)
        if encoding == "raw":
            n_there = os.fstat(file.fileno()).st_size - n_header_bytes
            if n_there < n_voxels * dtype.itemsize:
                raise UnreadableVolume(name, f"it is truncated: it has {n_there} bytes of {n_voxels * dtype.itemsize}")
            values = np.fromfile(file, dtype, n_voxels)
        else:
            values = np.frombuffer(inflate(file, n_voxels * dtype.itemsize, name), dtype)
    affine = np.eye(4)
    affine[:3, :3] = np.array([directions[axis] for axis in world_axes]).T
    affine[:3, 3] = origin
    return StoredVoxels(values, shape, np.diag((*_signs_to_ras(fields, name), 1.0)) @ affine)


def encode_nrrd(mask: Mask, affine: Affine, *, compress: bool) -> bytes:
    """A NRRD file of ``mask`` (i, j, k) on the grid of ``affine`` (index to mm, RAS+), as 3D Slicer writes it.

    Space directions and origin are in left-posterior-superior, with all their digits.
    """
    lps = np.diag((-1.0, -1.0, 1.0, 1.0)) @ affine
    i, j, k, origin = ("(" + ",".join(repr(float(x) + 0.0) for x in lps[:3, column]) + ")" for column in range(4))
    header = (
        "NRRD0004\n"
        "type: unsigned char\n"
        "dimension: 3\n"
        "space: left-posterior-superior\n"
        f"sizes: {mask.shape[0]} {mask.shape[1]} {mask.shape[2]}\n"
        f"space directions: {i} {j} {k}\n"
        "kinds: domain domain domain\n"
        "endian: little\n"
        f"encoding: {'gzip' if compress else 'raw'}\n"
        f"space origin: {origin}\n"
        "\n"
    )
    body = np.ravel(mask, order="F").data
    return header.encode("ascii") + (deflate(body) if compress else body)


def _parse_header(head: bytes, name: str) -> tuple[dict[str, str], int]:
    """(fields by lower-case name, number of bytes up to the first voxel); key:=value pairs are left out."""
    if not re.match(rb"NRRD000[1-5]\r?\n", head):
        raise UnreadableVolume(name, "it does not start with a NRRD header", "Check that it is a complete NRRD file.")
    end = re.search(rb"\n\r?\n", head)
    if end is None:
        raise UnreadableVolume(name, "its header does not end")
    fields: dict[str, str] = {}
    for line in head[: end.start()].decode("utf-8", "replace").splitlines()[1:]:
        field, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[field.strip().lower()] = value.strip()
    return fields, end.end()


def _directions(fields: dict[str, str], n_axes: int) -> list[tuple[float, ...] | None]:
    """For each axis its step in the file's space in mm, None where it has none."""
    if "space directions" in fields:
        directions = _vectors(fields["space directions"])
    elif "spacings" in fields:
        sizes_mm = [float(size) for size in fields["spacings"].split()]
        steps = iter(np.eye(3).tolist())
        directions = [None if math.isnan(mm) else tuple(mm * x for x in next(steps, ())) for mm in sizes_mm]
    else:
        raise ValueError("no voxel size: neither 'space directions' nor 'spacings'")
    if len(directions) != n_axes or any(direction is not None and len(direction) != 3 for direction in directions):
        raise ValueError("the directions do not match the axes")
    return directions


def _vectors(text: str) -> list[tuple[float, ...] | None]:
    """``"none (1,0,0) (0,1,0)"`` as tuples, None for ``none``."""
    return [
        None if vector == "none" else tuple(float(x) for x in vector[1:-1].split(","))
        for vector in re.findall(r"none|\([^()]*\)", text)
    ]


def _signs_to_ras(fields: dict[str, str], name: str) -> tuple[float, float, float]:
    """Signs that turn the file's world axes into RAS+."""
    space = fields.get("space", "left-posterior-superior").lower()
    if space not in TO_RAS:
        raise UnsupportedVolume(
            name, f"its space is '{space}'", "Save it in the space left-posterior-superior, as 3D Slicer does."
        )
    return TO_RAS[space]
