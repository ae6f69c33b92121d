"""Judges Kubernetes objects as a cluster's API server would, with no cluster.

Objects of Kubernetes itself are compared with the API's own schema, strictly; those of cert-manager and the
Prometheus operator with models made from their definitions; a route of the Gateway API with the schema below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import jsonschema_rs
import kubernetes_validate  # type: ignore[import-untyped]
from cloudcoil.models.cert_manager.v1 import Certificate
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from pydantic import BaseModel, ValidationError

MINORS: Final = ("1.30", "1.33", "1.35", "1.37")
"""From the oldest that the chart takes to the newest that the tool knows."""

_MODELS: Final[dict[str, type[BaseModel]]] = {
    "Certificate": Certificate,
    "PrometheusRule": PrometheusRule,
    "ServiceMonitor": ServiceMonitor,
}

_DURATION: Final = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
_BACKEND: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "port"],
    "properties": {"name": {"type": "string"}, "port": {"type": "integer", "minimum": 1, "maximum": 65535}},
}
_MATCH: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "path": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]},
                "value": {"type": "string", "pattern": "^/"},
            },
        }
    },
}
_RULE: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "matches": {"type": "array", "items": _MATCH, "maxItems": 64},
        "timeouts": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"request": _DURATION, "backendRequest": _DURATION},
        },
        "backendRefs": {"type": "array", "items": _BACKEND, "maxItems": 16},
    },
}
_PARENT: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "group": {"type": "string"},
        "kind": {"type": "string"},
        "namespace": {"type": "string"},
        "name": {"type": "string"},
        "sectionName": {"type": "string"},
        "port": {"type": "integer"},
    },
}
HTTP_ROUTE: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "gateway.networking.k8s.io/v1"},
        "kind": {"const": "HTTPRoute"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "parentRefs": {"type": "array", "items": _PARENT, "maxItems": 32},
                "hostnames": {"type": "array", "items": {"type": "string"}, "maxItems": 16},
                "rules": {"type": "array", "items": _RULE, "minItems": 1, "maxItems": 16},
            },
        },
    },
}
"""What of HTTPRoute (Gateway API v1) the chart has a use for; anything else is a slip."""


def faults(each: dict[str, Any]) -> list[str]:
    """What is wrong with an object, in words; nothing where it would be taken."""
    group = each["apiVersion"].rpartition("/")[0]
    if group == "gateway.networking.k8s.io":
        validator = jsonschema_rs.Draft202012Validator(HTTP_ROUTE)
        return [fault.message for fault in validator.iter_errors(each)]
    if group in {"cert-manager.io", "monitoring.coreos.com"}:
        return _faults_of_model(each)
    return [fault for minor in MINORS for fault in _faults_of_minor(each, minor)]


def pod_specs(made: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pod of each object that has one."""
    for each in made:
        if each["kind"] == "Pod":
            yield each["spec"]
        elif "template" in each.get("spec", {}):
            yield each["spec"]["template"]["spec"]


def unrestricted(pod: dict[str, Any]) -> list[str]:
    """What the Pod Security level ``restricted`` would refuse about a pod.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [
        f"volume {each['name']}" for each in pod.get("volumes", []) if not (each.keys() - {"name"}) <= allowed
    ]
    security = pod["securityContext"]
    if not security.get("runAsNonRoot") or security.get("runAsUser") == 0:
        found.append("may be root")
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        found.append("no seccomp profile")
    for container in pod["containers"]:
        own = container["securityContext"]
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append(f"{container['name']}: privileges")
        if own.get("capabilities", {}) != {"drop": ["ALL"]}:
            found.append(f"{container['name']}: capabilities")
        found += [
            f"{container['name']}: host port" for port in container.get("ports", []) if "hostPort" in port
        ]
    return found


def _faults_of_minor(each: dict[str, Any], minor: str) -> list[str]:
    try:
        kubernetes_validate.validate(each, minor, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as fault:
        return [f"Kubernetes {minor}: {fault}"]
    return []


def _faults_of_model(each: dict[str, Any]) -> list[str]:
    """What the model refuses, or drops because it does not know it."""
    try:
        read = _MODELS[each["kind"]].model_validate(each)
    except ValidationError as fault:
        return [str(fault)]
    kept = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [] if kept == each else [f"unknown to {each['kind']}: {_lost(each, kept)}"]


def _lost(given: Any, kept: Any, path: str = "") -> list[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        return [
            lost
            for name in given
            for lost in (
                _lost(given[name], kept[name], f"{path}.{name}") if name in kept else [f"{path}.{name}"]
            )
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [
            lost
            for number, pair in enumerate(zip(given, kept, strict=True))
            for lost in _lost(*pair, f"{path}[{number}]")
        ]
    return [] if given == kept else [path]
