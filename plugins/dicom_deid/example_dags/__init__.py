"""Example DAGs; `dicom-deid dags install` copies them to a DAGs folder."""
