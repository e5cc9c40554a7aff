"""The IAM policies in deploy/iam: enough for a run, and no permission more; enforced by moto's S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer
from tests.support.runs import CALM, RunEnvironment, small_ct

from dicom_deid.database import KeyRing
from dicom_deid.exceptions import DicomDeidError
from dicom_deid.objectstore import S3Connection
from dicom_deid.pipeline import Connections, RunConfiguration
from dicom_deid.pipeline.check import check_run
from dicom_deid.sandbox import S3Service

POLICIES = {
    path.stem: json.loads(path.read_text()) for path in (Path(__file__).parents[3] / "deploy/iam").glob("*.json")
}


def actions(policy: dict[str, Any]) -> set[str]:
    """Return the actions that a policy allows."""
    return {action for statement in policy["Statement"] for action in listed(statement["Action"])}


def listed(value: str | list[str]) -> list[str]:
    """Return a value of a policy as a list."""
    return [value] if isinstance(value, str) else value


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a policy without one action."""
    statements = [
        {**statement, "Action": [each for each in listed(statement["Action"]) if each != action]}
        for statement in policy["Statement"]
    ]
    return {**policy, "Statement": [statement for statement in statements if statement["Action"]]}


class Account:
    """An account whose users may do only what their policies say."""

    def __init__(self, url: str, database: str) -> None:
        self.url, self.database = url, database
        root = boto3.session.Session("root", "root", region_name="us-east-1")
        httpx.post(f"{url}/moto-api/reset")
        self.set_checks("100000")
        self.iam, s3 = (root.client(name, endpoint_url=url) for name in ("iam", "s3"))
        for bucket in ("archive", "research"):
            s3.create_bucket(Bucket=bucket)
        for number in range(2):
            s3.put_object(Bucket="archive", Key=f"ct/{number}.dcm", Body=small_ct(number))
        self.s3 = s3

    def set_checks(self, unchecked: str) -> None:
        """Let so many requests pass before policies are enforced."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=unchecked).raise_for_status()

    def user(self, name: str, policy: dict[str, Any]) -> S3Connection:
        """Make a user with a policy and return its connection."""
        self.iam.create_user(UserName=name)
        self.iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = self.iam.create_access_key(UserName=name)["AccessKey"]
        return S3Connection(
            endpoint_url=self.url, region="us-east-1", access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"]
        )

    def run(self, policies: dict[str, dict[str, Any]]) -> set[str]:
        """Check and run as users with these policies; return the outcomes.

        Raises
        ------
        DicomDeidError
            The store refused something.
        """
        users = {name: self.user(name, policy) for name, policy in policies.items()}
        connections = Connections(database=self.database, keys=KeyRing.generate(), **users)
        place = _Place(S3Service(self.url, "", ""), "archive", self.database)
        place.as_users = connections
        configuration = RunConfiguration(
            source="s3://archive/ct", destination="s3://research/ct", project="p", settings=CALM
        )
        self.set_checks("0")
        try:
            ran = place.run(configuration)
            problems = [
                result.problem
                for result in check_run(configuration, lambda: connections)
                if result.problem and "server-side" not in result.name
            ]
        finally:
            self.set_checks("100000")
        if problems:
            raise DicomDeidError(problems[0])
        return {outcome for outcome, _ in ran.outcomes.values()}


class _Place(RunEnvironment):
    as_users: Connections

    @property
    def connections(self) -> Connections:
        return self.as_users


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 and IAM server."""
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    yield "http://{}:{}".format(*started.get_host_and_port())
    started.stop()


@pytest.fixture
def account(server: str, postgres_url: str) -> Account:
    """A fresh account."""
    return Account(server, postgres_url)


def test_the_policies_are_enough(account: Account) -> None:
    """Catches a run that fails with the rights that the documentation gives it."""
    assert account.run(POLICIES) == {"deidentified"}


@pytest.mark.parametrize(
    ("role", "action"), [(role, action) for role, policy in POLICIES.items() for action in sorted(actions(policy))]
)
def test_every_permission_is_needed(account: Account, caplog: pytest.LogCaptureFixture, role: str, action: str) -> None:
    """Catches a permission that no run needs."""
    try:
        account.run(POLICIES | {role: without(POLICIES[role], action)})
    except DicomDeidError:
        return
    # An upload that cannot be aborted is only a warning: its parts stay in the store.
    assert "unfinished multipart upload" in caplog.text
    assert action == "s3:AbortMultipartUpload"


def test_the_source_cannot_be_written(account: Account) -> None:
    """Catches a policy with which a fault of the package could change an original."""
    user = account.user("reader", POLICIES["source"])
    account.set_checks("0")
    try:
        with pytest.raises(Exception, match="AccessDenied"):
            user.clients("archive").client.delete_object(Bucket="archive", Key="ct/0.dcm")
    finally:
        account.set_checks("100000")
