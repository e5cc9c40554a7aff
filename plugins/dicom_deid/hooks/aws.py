"""The S3 connection of an `aws` connection, with the session that Airflow's own AWS hook makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

from dicom_deid.exceptions import ConfigurationError
from dicom_deid.hooks.connections import get_connection
from dicom_deid.objectstore import RetryPolicy, S3Connection

OWN_OPTIONS = (
    "server_side_encryption",
    "kms_key_id",
    "bucket_key",
    "sse_customer_secret",
    "storage_class",
    "requester_pays",
    "checksum",
    "conditional_writes",
    "delete_versions",
    "compare_etags",
    "requests_per_second",
    "bytes_per_second",
)
"""Valid keys of the object `dicom_deid` in the connection's extra; see `S3Connection`."""

_CONFIG = {
    "connect_timeout": "connect_timeout",
    "read_timeout": "read_timeout",
    "max_pool_connections": "max_connections",
}
"""botocore settings by the field of `S3Connection` that they set."""

_HONOURED = {
    "its extra": {
        *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "session_kwargs", "profile_name"),
        *("role_arn", "assume_role_method", "assume_role_kwargs"),
        *("assume_role_with_saml", "assume_role_with_web_identity"),
        *("endpoint_url", "region_name", "verify", "config_kwargs", "service_config", "dicom_deid"),
    },
    "config_kwargs": {
        *_CONFIG,
        "proxies",
        "request_checksum_calculation",
        "response_checksum_validation",
        "retries",
        "s3",
    },
    "config_kwargs.retries": {"max_attempts", "total_max_attempts"},
    "config_kwargs.s3": {"addressing_style", "payload_signing_enabled"},
    "service_config.s3": {"endpoint_url", "bucket_name"},
}
"""Keys of the connection's extra that have an effect. Any other is refused, since it could protect something."""


def s3_connection(aws_conn_id: str | None) -> S3Connection | None:
    """Return the S3 connection of an `aws` connection.

    Credentials are those of the session of Airflow's AWS hook: keys, profile, and roles with all their arguments
    (session name, duration, policy, external id, SAML, web identity), renewed before they expire.

    Parameters
    ----------
    aws_conn_id
        Id of the connection. None for directories, or to use the AWS environment variables.

    Raises
    ------
    ConfigurationError
        There is no such connection, it has another type, or its extra has a setting that would have no effect.
    """
    if aws_conn_id is None:
        return None
    get_connection(aws_conn_id, "aws")
    hook: AwsGenericHook[Any] = AwsGenericHook(aws_conn_id=aws_conn_id, client_type="s3")
    wrapper = hook.conn_config
    extra = wrapper.extra_config
    _refuse_unknown(aws_conn_id, extra)
    config = extra.get("config_kwargs") or {}
    return S3Connection(
        name=aws_conn_id,
        session=hook.get_session(),
        endpoint_url=wrapper.get_service_endpoint_url("s3"),
        region=wrapper.region_name,
        verify=True if wrapper.verify is None else wrapper.verify,
        addressing_style=(config.get("s3") or {}).get("addressing_style", "auto"),
        proxies=config.get("proxies") or {},
        **{ours: config[theirs] for theirs, ours in _CONFIG.items() if theirs in config},
        **_checksum(config),
        **_retry(config),
        **(extra.get("dicom_deid") or {}),
    )


def _refuse_unknown(aws_conn_id: str, extra: Mapping[str, Any]) -> None:
    config = extra.get("config_kwargs") or {}
    given = {
        "its extra": extra,
        "config_kwargs": config,
        "config_kwargs.retries": config.get("retries") or {},
        "config_kwargs.s3": config.get("s3") or {},
        "service_config.s3": (extra.get("service_config") or {}).get("s3") or {},
    }
    for where, names in given.items():
        _check_keys(aws_conn_id, where, names, _HONOURED[where])
    _check_keys(aws_conn_id, "dicom_deid", extra.get("dicom_deid") or {}, OWN_OPTIONS)
    if (config.get("s3") or {}).get("payload_signing_enabled") is False:
        raise ConfigurationError(
            f"The connection {aws_conn_id!r} turns payload signing off; payloads are always signed."
        )


def _check_keys(aws_conn_id: str, where: str, given: Iterable[str], valid: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"The connection {aws_conn_id!r} has {', '.join(unknown)} in {where}, which would have no "
            f"effect here; valid are {', '.join(sorted(valid))}."
        )


def _checksum(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"checksum": "md5"} if config.get("request_checksum_calculation") == "when_required" else {}


def _retry(config: Mapping[str, Any]) -> dict[str, Any]:
    retries = config.get("retries") or {}
    attempts = retries.get("total_max_attempts", retries.get("max_attempts"))
    return {} if attempts is None else {"retry": RetryPolicy(max_attempts=max(1, int(attempts)))}
