"""De-identify studies when they have arrived.

Set `[dicom_deid] arrival_source` and `arrival_destination` (`s3://bucket/prefix`) in Airflow's configuration. The
triggerer lists the source every ten seconds, and starts a run when nothing was added to a folder for a minute. For a
store that sends events to a queue, replace the trigger by `MessageQueueTrigger` of the provider `common.messaging`.
"""

from datetime import timedelta

from airflow.configuration import conf
from airflow.sdk import DAG, Asset, AssetWatcher

from dicom_deid.operators import DicomDeidTaskGroup
from dicom_deid.triggers import NewObjectsTrigger

SOURCE = conf.get("dicom_deid", "arrival_source", fallback="")
DESTINATION = conf.get("dicom_deid", "arrival_destination", fallback="")
SETTLE_SECONDS = conf.getfloat("dicom_deid", "arrival_settle_seconds", fallback=60.0)

arrivals = Asset(
    "dicom_deid_arrivals",
    watchers=[
        AssetWatcher(
            name="dicom_deid_arrivals", trigger=NewObjectsTrigger(source=SOURCE, settle_seconds=SETTLE_SECONDS)
        )
    ]
    if SOURCE
    else [],
)

with DAG(
    "dicom_deid_on_arrival",
    description="De-identify studies when they have arrived",
    doc_md=__doc__,
    schedule=[arrivals],
    catchup=False,
    max_active_runs=1,
    tags=["dicom", "de-identification"],
    default_args={"retries": 3, "retry_delay": timedelta(seconds=10)},
) as dag:
    DicomDeidTaskGroup(source=SOURCE, destination=DESTINATION, settle_seconds=SETTLE_SECONDS, reason="arrival")
