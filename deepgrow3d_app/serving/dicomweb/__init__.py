"""Studies on a DICOMweb server: found, fetched and kept, and segmentations sent back."""
