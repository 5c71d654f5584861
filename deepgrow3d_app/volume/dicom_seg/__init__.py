"""DICOM SEG: label maps of a DICOM series, as other programs and archives know them."""
