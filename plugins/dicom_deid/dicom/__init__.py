"""Encoded DICOM: elements, values and character sets, file meta information; knows no rules."""
