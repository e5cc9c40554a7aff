"""The S3 connection of an `aws` connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.objectstore import RetryPolicy, S3Connection

OWN_OPTIONS = (
    "server_side_encryption",
    "kms_key_id",
    "bucket_key",
    "storage_class",
    "requester_pays",
    "checksum",
    "conditional_writes",
    "requests_per_second",
    "bytes_per_second",
)
"""What the object `dicom_deid` in the connection's extra may hold; see `S3Connection`."""

_CONFIG = {
    "connect_timeout": "connect_timeout",
    "read_timeout": "read_timeout",
    "max_pool_connections": "max_connections",
}
"""botocore's settings that have a counterpart."""


def s3_connection(aws_conn_id: str | None) -> S3Connection | None:
    """Return how to reach the S3 store of an `aws` connection.

    Keys, profile and role are handed over; for a role that is assumed by SAML or a web identity, the session that
    Airflow's AWS hook makes is used.

    Parameters
    ----------
    aws_conn_id
        Id of the connection; None for directories, or for what the AWS environment variables say.

    Raises
    ------
    ConfigurationError
        The connection is of another type, or its extra has an unknown option under `dicom_deid`.
    """
    if aws_conn_id is None:
        return None
    hook: AwsGenericHook[Any] = AwsGenericHook(aws_conn_id=aws_conn_id, client_type="s3")
    wrapper = hook.conn_config
    if wrapper.conn_type != "aws":
        raise ConfigurationError(f"The connection {aws_conn_id} is of type {wrapper.conn_type}, not aws.")
    config = wrapper.extra_config.get("config_kwargs") or {}
    return S3Connection(
        endpoint_url=wrapper.get_service_endpoint_url("s3"),
        region=wrapper.region_name,
        verify=True if wrapper.verify is None else wrapper.verify,
        addressing_style=(config.get("s3") or {}).get("addressing_style", "auto"),
        proxies=config.get("proxies") or {},
        **_credentials(hook, wrapper),
        **{ours: config[theirs] for theirs, ours in _CONFIG.items() if theirs in config},
        **_checksum(config),
        **_retry(config),
        **_own_options(aws_conn_id, wrapper.extra_config),
    )


def _credentials(hook: AwsGenericHook[Any], wrapper: AwsConnectionWrapper) -> dict[str, Any]:
    if wrapper.role_arn and wrapper.assume_role_method != "assume_role":
        return {"session": hook.get_session()}
    return {
        "access_key": wrapper.aws_access_key_id,
        "secret_key": wrapper.aws_secret_access_key,
        "session_token": wrapper.aws_session_token,
        "profile": wrapper.profile_name,
        "role_arn": wrapper.role_arn,
        "external_id": wrapper.assume_role_kwargs.get("ExternalId"),
    }


def _checksum(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": "md5"} if config.get("request_checksum_calculation") == "when_required" else {}


def _retry(config: Mapping[str, Any]) -> dict[str, Any]:
    retries = config.get("retries") or {}
    attempts = retries.get("total_max_attempts", retries.get("max_attempts"))
    return {} if attempts is None else {"retry": RetryPolicy(max_attempts=max(1, int(attempts)))}


def _own_options(aws_conn_id: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = extra.get("dicom_deid") or {}
    unknown = sorted(set(options) - set(OWN_OPTIONS))
    if unknown:
        raise ConfigurationError(
            f"The extra of the connection {aws_conn_id} has no option {', '.join(unknown)} under dicom_deid; "
            f"it may hold {', '.join(OWN_OPTIONS)}."
        )
    return options
