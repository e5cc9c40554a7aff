"""Real servers for a laptop: SeaweedFS (S3), PostgreSQL, Airflow."""

from dicom_deid.sandbox.sandbox import Sandbox, default_directory
from dicom_deid.sandbox.seaweedfs import S3Service

__all__ = ["S3Service", "Sandbox", "default_directory"]
