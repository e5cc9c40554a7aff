"""Encoded DICOM: elements, values and character sets, file meta information; knows no rules."""

import logging
import warnings

from pydicom import config

from dicom_deid.dicom.newer_attributes import register_attributes

# What pydicom warns of, it quotes: an invalid value, an unknown character set. It says so to Python's warnings and to
# its logger, and both end in the log of a task. What such a value means for an object is for the rules to decide.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module=r"(pydicom|dicom_deid)\b")
register_attributes()
