"""Translate the exceptions of the S3 clients into ours.

The clients' messages hold object keys, which may hold names of patients: none of their text leaves this module, only
the HTTP status and the store's error code.
"""

from __future__ import annotations

import re

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from obstore.exceptions import AlreadyExistsError, BaseError

from dicom_deid.exceptions import ConfigurationError, DicomDeidError, ObjectStoreError, Quarantine
from dicom_deid.reasons import Reason


class TransientError(ObjectStoreError):
    """The same request may succeed a little later."""


class NotFound(ObjectStoreError):
    """The store has no such object."""


class RangeNotSatisfiable(ObjectStoreError):
    """The object is shorter than the requested range."""


class PreconditionFailed(ObjectStoreError):
    """The condition of a conditional request does not hold."""


class RefusedError(ObjectStoreError):
    """The store does not support this kind of request."""


class AlreadyInProgress(ObjectStoreError):
    """The store is doing already what is requested."""


class UploadGone(ObjectStoreError):
    """The store does not know the multipart upload: it was completed, aborted or removed."""


CLIENT_ERRORS = (ClientError, BotoCoreError, BaseError, OSError)
"""Exceptions of the two clients."""

_TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
_WHAT_TO_CHECK = {
    "NoSuchBucket": "the bucket does not exist; check its name and the endpoint",
    "RequestTimeTooSkewed": "the clocks of this machine and of the store differ; set this machine's clock",
    "InvalidAccessKeyId": "the store does not know the access key; check the connection's credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the connection's credentials and region",
    "ExpiredToken": "the session token has expired; renew the connection's credentials",
    "AuthorizationHeaderMalformed": "the region is wrong; check the connection's region",
    "PermanentRedirect": "the bucket is in another region; check the connection's region and endpoint",
}
_CONDITIONS: dict[int, type[ObjectStoreError]] = {404: NotFound, 412: PreconditionFailed, 416: RangeNotSatisfiable}
_SPECIAL_CODES: dict[str, type[ObjectStoreError]] = {
    "NoSuchUpload": UploadGone,
    "RestoreAlreadyInProgress": AlreadyInProgress,
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")


def translate(error: BaseException, doing: str) -> DicomDeidError:
    """Return our exception for one that a client raised.

    Parameters
    ----------
    error
        One of `CLIENT_ERRORS`.
    doing
        The operation, for the message; never a key.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return classify_http_error(status, str(error.response.get("Error", {}).get("Code", "")), doing)
    if isinstance(error, BotoConnectionError | HTTPClientError | IncompleteReadError | ResponseStreamingError):
        return TransientError(f"{doing}: the connection to the store failed ({type(error).__name__})")
    if isinstance(error, BotoCoreError):
        return ConfigurationError(f"{doing}: {type(error).__name__}; check the connection's settings and credentials")
    return _translate_obstore(error, doing)


def classify_http_error(status: int, code: str, doing: str) -> DicomDeidError:
    """Return our exception for an HTTP status and the store's error code."""
    said = f"{doing}: the store answered {status} {code}".rstrip()
    if code in _WHAT_TO_CHECK:
        return ConfigurationError(f"{said}: {_WHAT_TO_CHECK[code]}")
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS:
        return TransientError(said)
    if code in _SPECIAL_CODES:
        return _SPECIAL_CODES[code](said)
    if code == "InvalidObjectState":
        return Quarantine(Reason.ARCHIVED)
    return _classify_status(status, said)


def _classify_status(status: int, said: str) -> DicomDeidError:
    if status in _CONDITIONS:
        return _CONDITIONS[status](said)
    if status in (401, 403):
        return ConfigurationError(f"{said}: check the connection's credentials and what they may do in the bucket")
    if status in (301, 307, 308):
        return ConfigurationError(f"{said}: the bucket is elsewhere; check the connection's region and endpoint")
    if status in (400, 405, 501):
        return RefusedError(said)
    return ObjectStoreError(said)


def _translate_obstore(error: BaseException, doing: str) -> DicomDeidError:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status is not None:
        return classify_http_error(int(status[1]), code[1] if code else "", doing)
    if isinstance(error, AlreadyExistsError):
        return PreconditionFailed(f"{doing}: the object is there already")
    return TransientError(f"{doing}: the connection to the store failed")
