"""Encoded DICOM: elements, values and character sets, file meta information. Independent of recipes."""

import logging
import warnings

from pydicom import config

from dicom_deid.dicom.newer_attributes import register_attributes

# pydicom's warnings quote values (an invalid value, an unknown character set); Python's warnings and pydicom's logger
# both end in the log of a task.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"(pydicom|dicom_deid)\b")
register_attributes()
