# syntax=docker/dockerfile:1
# Airflow with dicom-deid installed from this directory. Runs as the image's user airflow, never as root.
ARG AIRFLOW_IMAGE=apache/airflow:3.3.2-python3.11

FROM ${AIRFLOW_IMAGE} AS build
WORKDIR /tmp/source
COPY --chown=airflow:0 pyproject.toml README.md LICENSE NOTICE ./
COPY --chown=airflow:0 plugins plugins
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheels .

FROM ${AIRFLOW_IMAGE}
# The constraints of the tests, so that the image holds the tested versions.
COPY --chown=airflow:0 constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=build,source=/tmp/wheels,target=/tmp/wheels \
    wheel="$(echo /tmp/wheels/airflow_provider_dicom_deid-*.whl)" \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt \
        "${wheel}[codecs,ocr,parquet,review,sandbox]" apache-airflow-providers-celery redis
RUN dicom-deid dags install /opt/airflow/dags

# A new volume gets the owner and the mode of the directory that it is mounted on.
USER root
RUN install -d -o airflow -g 0 -m 0750 /run/dicom-deid /run/login \
    && install -d -o airflow -g 0 -m 0755 /run/servers /var/lib/dicom-deid/storage
USER airflow
