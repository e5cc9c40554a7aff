"""De-identify studies when they have arrived.

Set `[dicom_deid] arrival_source` and `arrival_destination` (`s3://bucket/prefix`) in Airflow's configuration. A run
starts when nothing was added to a folder for a minute. The triggerer lists the source every ten seconds; if the store
sends events to a queue, set `arrival_queue` to its URL, and the messages are read instead (needs
`apache-airflow-providers-common-messaging` and `apache-airflow-providers-amazon[aiobotocore]`).
"""

from datetime import timedelta

from airflow.configuration import conf
from airflow.sdk import DAG, Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger

from dicom_deid.operators import DicomDeidTaskGroup
from dicom_deid.triggers import NewObjectsTrigger, SettledMessagesTrigger

SOURCE = conf.get("dicom_deid", "arrival_source", fallback="")
DESTINATION = conf.get("dicom_deid", "arrival_destination", fallback="")
SETTLE_SECONDS = conf.getfloat("dicom_deid", "arrival_settle_seconds", fallback=60.0)
QUEUE = conf.get("dicom_deid", "arrival_queue", fallback="")

trigger: BaseEventTrigger
if QUEUE:
    from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger

    messages = MessageQueueTrigger(
        scheme="sqs", sqs_queue=QUEUE, aws_conn_id="dicom_deid_queue", max_messages=10, waiter_delay=2
    )
    trigger = SettledMessagesTrigger(messages=messages, settle_seconds=SETTLE_SECONDS)
else:
    trigger = NewObjectsTrigger(source=SOURCE, settle_seconds=SETTLE_SECONDS)

watcher = AssetWatcher(name="dicom_deid_arrivals", trigger=trigger)
arrivals = Asset("dicom_deid_arrivals", watchers=[watcher] if SOURCE else [])

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
