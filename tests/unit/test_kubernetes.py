"""The files for Kubernetes: valid, without secrets and root, and in step with each other and with the package.

The pod template is checked with the schemas that Kubernetes publishes. The Helm values are checked with the schema of
the chart if the environment variable `AIRFLOW_CHART_SCHEMA` has the path of its `values.schema.json`, and in any case
with the types that chart 1.22 gives to the keys that are used.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from dicom_deid.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kubernetes/values.yaml").read_text())
POD: dict[str, Any] = yaml.safe_load((ROOT / "deploy/kubernetes/pod-template.yaml").read_text())
KUBERNETES = "1.30"
TEXT = {"type": "string"}
CHART = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "executor": TEXT,
        "airflowVersion": TEXT,
        "images": {
            "additionalProperties": False,
            "properties": {"airflow": {"additionalProperties": False, "properties": {"repository": TEXT, "tag": TEXT}}},
        },
        "postgresql": {"additionalProperties": False, "properties": {"enabled": {"type": "boolean"}}},
        "data": {"additionalProperties": False, "properties": {"metadataSecretName": TEXT}},
        "fernetKeySecretName": TEXT,
        "apiSecretKeySecretName": TEXT,
        "jwtSecretName": TEXT,
        "secret": {
            "type": "array",
            "items": {
                "additionalProperties": False,
                "required": ["envName", "secretName"],
                "properties": {"envName": TEXT, "secretName": TEXT, "secretKey": TEXT},
            },
        },
        "config": {"additionalProperties": {"additionalProperties": TEXT}},
    },
}


def container() -> dict[str, Any]:
    """Return the container of the pod."""
    (found,) = POD["spec"]["containers"]
    return dict(found)


def secrets_of_the_pod() -> dict[str, tuple[str, str]]:
    """Return the secret and its key of each variable of the pod."""
    found = {}
    for each in container()["env"]:
        if "valueFrom" in each:
            reference = each["valueFrom"]["secretKeyRef"]
            found[each["name"]] = (reference["name"], reference["key"])
    return found


def test_the_pod_template_is_valid() -> None:
    """Catches a field that Kubernetes refuses or ignores."""
    kubernetes_validate.validate(POD, KUBERNETES, strict=True)
    wrong = copy.deepcopy(POD)
    wrong["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_values_are_valid() -> None:
    """Catches a value that the chart refuses or ignores."""
    jsonschema.validate(VALUES, CHART)
    path = os.environ.get("AIRFLOW_CHART_SCHEMA")
    if path:
        jsonschema.validate(VALUES, json.loads(Path(path).read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, "jwtSecret_name": "x"}, CHART)


def test_no_process_has_rights_that_it_does_not_need() -> None:
    """Catches a task that runs as root, writes to its image, calls the Kubernetes API or can sign tokens of others."""
    assert VALUES["jwtSecretName"] not in {secret for secret, _ in secrets_of_the_pod().values()}
    spec, inner = POD["spec"], container()["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_secret_is_written_down() -> None:
    """Catches a password or key in a file of the repository."""
    plain = {each["name"]: each["value"] for each in container()["env"] if "value" in each}
    assert plain == {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    assert "env" not in VALUES


def test_the_pod_has_the_secrets_of_the_values() -> None:
    """Catches a task without a connection that the pages have, or with another secret."""
    pod = secrets_of_the_pod()
    assert {
        each["envName"]: (each["secretName"], each["secretKey"]) for each in VALUES["secret"]
    }.items() <= pod.items()
    assert pod["AIRFLOW__CORE__FERNET_KEY"][0] == VALUES["fernetKeySecretName"]
    assert container()["image"] == "{repository}:{tag}".format(**VALUES["images"]["airflow"])
    assert container()["name"] == "base"


def test_the_configuration_exists() -> None:
    """Catches an option that the package does not read."""
    assert set(VALUES["config"]["dicom_deid"]) <= set(get_provider_info()["config"]["dicom_deid"]["options"])


def test_the_version_is_that_of_the_image() -> None:
    """Catches a chart that is set up for another Airflow than the image has."""
    assert f"apache/airflow:{VALUES['airflowVersion']}-" in (ROOT / "Dockerfile").read_text()
