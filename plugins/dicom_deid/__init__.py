"""De-identification of DICOM objects in S3-compatible storage, as Apache Airflow operators.

Importing the package, or its engine, never imports Airflow.
"""

__version__ = "0.1.0"
