"""Protection of the POST routes: a token in every form, and requests from the same origin only."""

from __future__ import annotations

import hmac
import time
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import Form, HTTPException, Request

_DAY = 86400
_REFUSED = "The form was not sent from this page, or is too old: reload the page and try again."


def form_token(user_id: str, *, day: int | None = None) -> str:
    """Return the token of a user's forms, valid on its day and the next."""
    day = int(time.time() // _DAY) if day is None else day
    secret: str = conf.get("api", "secret_key")
    return hmac.digest(secret.encode(), f"dicom-deid form\0{user_id}\0{day}".encode(), "sha256").hex()


def verified_form(request: Request, user: GetUserDep, token: Annotated[str, Form()] = "") -> None:
    """Require the token of the user and the same origin.

    Raises
    ------
    HTTPException
        403 if the token is missing, wrong or too old, or the request comes from another site.
    """
    today = int(time.time() // _DAY)
    valid = [form_token(user.get_id(), day=day) for day in (today, today - 1)]
    if not any(hmac.compare_digest(token.encode(), each.encode()) for each in valid) or not _is_same_origin(request):
        raise HTTPException(403, _REFUSED)


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    hosts = {request.headers.get("host", ""), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
    return urlsplit(origin).netloc in hosts
