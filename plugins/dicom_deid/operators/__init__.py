"""Airflow operators and the task group; import them from here."""

from dicom_deid.operators.approval import DicomApprovalOperator
from dicom_deid.operators.check import DicomCheckOperator
from dicom_deid.operators.deidentify import DicomDeidentifyOperator
from dicom_deid.operators.index import DicomIndexOperator
from dicom_deid.operators.plan import DicomPlanOperator
from dicom_deid.operators.preview import DicomPreviewOperator
from dicom_deid.operators.release import DicomReleaseOperator
from dicom_deid.operators.report import DicomReportOperator
from dicom_deid.operators.review import DicomReviewPlanOperator
from dicom_deid.operators.run_warnings import DicomWarningsOperator
from dicom_deid.operators.task_group import DicomDeidTaskGroup
from dicom_deid.operators.withdraw import DicomWithdrawOperator

__all__ = [
    "DicomApprovalOperator",
    "DicomCheckOperator",
    "DicomDeidTaskGroup",
    "DicomDeidentifyOperator",
    "DicomIndexOperator",
    "DicomPlanOperator",
    "DicomPreviewOperator",
    "DicomReleaseOperator",
    "DicomReportOperator",
    "DicomReviewPlanOperator",
    "DicomWarningsOperator",
    "DicomWithdrawOperator",
]
