"""Generate the device catalogue `devices.dicom` from facts about devices that burn text into their images."""
