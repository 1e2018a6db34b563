"""Scans as files: NIfTI in and out, DICOM series in. The affine, which says where voxels lie in the body, is kept."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seewhy.errors import InputError, MissingExtra
from seewhy.images.files import written_whole

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: its voxels, and where they lie.

    Attributes:
        voxels: (D, H, W), the axes as the file has them, in its units (Hounsfield units for CT).
        affine: (4, 4), from voxel numbers (d, h, w, 1) to millimetres.
        header: the NIfTI header, or None.
    """

    voxels: Float[Tensor, "D H W"]
    affine: Float[np.ndarray, "4 4"]
    header: Any = field(default=None, repr=False)

    def write(self, path: str | Path, map: Tensor) -> Path:  # noqa: A002  # what it is
        """Write a map of these voxels as a NIfTI file that opens over the scan.

        Args:
            path: ends in .nii or .nii.gz.
            map: (D, H, W), such as `explanation.heatmap[0]`.

        Raises:
            InputError: for another ending, or a map of another size.
            MissingExtra: if nibabel is not installed.
        """
        nibabel = _nibabel()
        path = Path(path)
        if not path.name.endswith(NIFTI):
            raise InputError("unknown file ending.", got=repr(path.name), expected=" or ".join(NIFTI))
        if map.shape != self.voxels.shape:
            raise InputError(
                "this map is not of the scan's size.", got=tuple(map.shape), expected=tuple(self.voxels.shape)
            )
        image = nibabel.Nifti1Image(map.detach().cpu().float().numpy(), self.affine)
        if self.header is not None:
            image.header.set_xyzt_units(*self.header.get_xyzt_units())
            image.set_qform(self.affine, int(self.header["qform_code"]))
            image.set_sform(self.affine, int(self.header["sform_code"]) or 1)
        content = image.to_bytes()
        with written_whole(path) as temporary:
            temporary.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path


def read_volume(path: str | Path) -> Volume:
    """The scan in a NIfTI file, or in a folder of the DICOM files of one series.

    Args:
        path: a .nii or .nii.gz file, or a folder.

    Raises:
        InputError: for anything else, for a file of several volumes, and for a folder without one series.
        MissingExtra: if nibabel, or for DICOM pydicom, is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _series(path)
    if not path.name.endswith(NIFTI) or not path.is_file():
        raise InputError(f"{path}: is no scan.", expected="a .nii or .nii.gz file, or a folder of DICOM files")
    image = _nibabel().load(path)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels = voxels[..., 0] if voxels.ndim == 4 and voxels.shape[3] == 1 else voxels
    if voxels.ndim != 3:
        raise InputError(f"{path}: is not one volume.", got=f"shape {voxels.shape}", do="split it, volume by volume")
    return Volume(torch.from_numpy(np.ascontiguousarray(voxels)), np.asarray(image.affine), image.header)


def _series(folder: Path) -> Volume:
    """The slices of a series in the order in which they lie, as DICOM places them (part 3, C.7.6.2.1.1)."""
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtra.of("pydicom", "volumes") from error
    slices = []
    for file in sorted(folder.iterdir()):
        if file.is_file() and pydicom.misc.is_dicom(file):
            found = pydicom.dcmread(file)
            if hasattr(found, "ImagePositionPatient") and hasattr(found, "PixelData"):
                slices.append(found)
    series = {found.SeriesInstanceUID for found in slices}
    if len(series) != 1:
        raise InputError(f"{folder}: does not hold one series.", got=f"{len(slices)} slices of {len(series)} series")
    across, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    slices.sort(key=lambda found: float(normal @ np.array(found.ImagePositionPatient, float)))
    first, last = (np.array(found.ImagePositionPatient, float) for found in (slices[0], slices[-1]))
    step = (last - first) / (len(slices) - 1) if len(slices) > 1 else normal * float(slices[0].SliceThickness)
    between_rows, between_columns = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.stack([step, down * between_rows, across * between_columns, first], 1)
    affine[:2] *= -1  # DICOM's axes point to the left and back of the patient, NIfTI's to the right and front
    levels = [
        found.pixel_array.astype(np.float32) * float(getattr(found, "RescaleSlope", 1))
        + float(getattr(found, "RescaleIntercept", 0))
        for found in slices
    ]
    return Volume(torch.from_numpy(np.stack(levels)), affine)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtra.of("nibabel", "volumes") from error
    return nibabel
