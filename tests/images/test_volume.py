"""Scans in and out: a map opens over its scan, and a series' slices lie where DICOM says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seewhy.errors import InputError
from seewhy.images.volume import Volume, read_volume

AFFINE = np.array([[0, 0, -0.8, 90], [0, -0.8, 0, 120], [2.5, 0, 0, -300], [0, 0, 0, 1]])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_map_has_the_affine_of_its_scan(tmp_path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    scan = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(scan, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / f"scan{ending}")
    volume = read_volume(tmp_path / f"scan{ending}")
    assert torch.equal(volume.voxels, torch.from_numpy(scan).float())
    heat = torch.rand(2, 3, 4)
    written = nibabel.load(volume.write(tmp_path / f"why{ending}", heat))
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), heat.numpy())
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"scan{ending}", f"why{ending}"]
    with pytest.raises(InputError, match="not of the scan's size"):
        volume.write(tmp_path / "other.nii", heat[:1])
    with pytest.raises(InputError, match="unknown file ending"):
        volume.write(tmp_path / "why.png", heat)


def test_a_series_is_read_in_the_order_in_which_its_slices_lie(tmp_path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    series = generate_uid()
    levels = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    for name, number in (("b", 0), ("c", 1), ("a", 2)):  # names say nothing of the place
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found = FileDataset(str(tmp_path / name), {}, file_meta=meta, preamble=b"\0" * 128)
        found.SOPClassUID, found.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        found.SeriesInstanceUID = series
        found.ImagePositionPatient, found.ImageOrientationPatient = [10, 20, 30 + 2.5 * number], [1, 0, 0, 0, 1, 0]
        found.PixelSpacing, found.SliceThickness = [0.7, 0.8], 2.5
        found.Rows, found.Columns, found.SamplesPerPixel = 4, 5, 1
        found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 16, 15, 1
        found.PhotometricInterpretation = "MONOCHROME2"
        found.RescaleSlope, found.RescaleIntercept = 2, -1024
        found.PixelData = levels[number].tobytes()
        found.save_as(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a slice")
    assert pydicom.misc.is_dicom(tmp_path / "a")
    volume = read_volume(tmp_path)
    assert torch.equal(volume.voxels, torch.from_numpy(levels).float() * 2 - 1024)
    # voxel (slice 2, row 3, column 4) lies at x = 10 + 4 * 0.8, y = 20 + 3 * 0.7 of the patient: left and back
    np.testing.assert_allclose(volume.affine @ [2, 3, 4, 1], [-(10 + 3.2), -(20 + 2.1), 35, 1], atol=1e-6)


def test_what_is_no_scan_is_refused(tmp_path) -> None:
    for name in ("missing.nii", "photo.png"):
        with pytest.raises(InputError, match="is no scan"):
            read_volume(tmp_path / name)
    pytest.importorskip("pydicom")
    with pytest.raises(InputError, match="does not hold one series"):
        read_volume(tmp_path)
    assert Volume(torch.zeros(1, 1, 1), np.eye(4)).header is None
