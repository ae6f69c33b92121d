"""Makes the chart's README.md from ``values.schema.json`` and ``values.yaml``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from deploy.chart import CHART, chart

_HEAD: Final = """\
# The chart

```console
kubectl create namespace plant
kubectl -n plant create secret generic tidegate-api-keys --from-file=api-keys=api-keys.yaml
helm -n plant install tidegate deploy/helm/tidegate --set image.repository=registry.example/tidegate \\
    --set broker.url=mqtt://mosquitto:1883 --set access.apiKeys.existingSecret=tidegate-api-keys
helm -n plant test tidegate --logs
```

`deploy/helm/examples/` has values for common places; a test renders each. What contradicts itself is
refused in words, before anything is made. A key with nothing behind it takes the default away and is
refused too (`missing property`): leave it out. Kubernetes 1.30 or later, Helm 3.14 or later.

- **Settings.** Any setting of the bridge goes into `settings` by its name; secrets into a Secret of yours
  that `existingSecrets` names, with keys named like the settings. The chart knows all of them: a name or a
  value that the bridge would not start with is refused, and so is a secret in `settings`, which end in a
  ConfigMap. What is read once and what is watched, and what a change of a Secret takes, stands in
  [Kubernetes](../../../docs/kubernetes.md#secrets-and-what-is-watched).
- **Stopping.** A pod serves on for `preStopSeconds` while the cluster forgets it, then says goodbye to its
  streams and lets requests end within `drainSeconds`. The grace is computed from both.
- **Scaling.** Streams stay where they are when pods are added; with `TIDEGATE_STREAM_LIFETIME_SECONDS` they
  come round. Pods go one by one, and late, since each sends its streams elsewhere. Until replicas share a
  journal, a client that comes back to another pod is told `gap`. `service.sessionAffinity=ClientIP` helps
  callers of the Service; an Ingress sends to pods by a rule of its own
  ([values](../../../docs/kubernetes.md#3-the-values)).
- **Streams through an Ingress.** Nothing may buffer them. For nginx the chart switches buffering off, both
  ways, lifts the limit of bodies (the bridge has its own) and sets the time-outs; Traefik buffers nothing
  unless a `buffering` or `compress` middleware is put before it, so put none; its entry points end the
  reading of a request after 60 seconds ([browsers](../../../docs/browsers.md#traefik)). With `nginx-inc` a
  batch in lines arrives when it is complete.
- **Certificates.** `credentials.certificate` is the bridge's client certificate for the broker. That of an
  Ingress is made by cert-manager where `ingress.annotations` name an issuer
  (`cert-manager.io/cluster-issuer`) and `ingress.tls.secretName` says where it goes.
- **Security.** Pods fit the Pod Security level `restricted`. With `networkPolicy.enabled` they reach DNS,
  the broker, the issuer of tokens in `settings`, Redis where its port is known, what `networkPolicy.egress`
  adds, and nothing else.
- **Upgrades.** No value changes what a cluster never lets change, such as the labels by which pods are
  found ([Kubernetes](../../../docs/kubernetes.md#upgrades-and-the-way-back)).

## Values

Made from `values.schema.json` and `values.yaml` by `make manifests`.

"""


def render_page() -> str:
    """The whole page."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    groups = {name: part for name, part in schema["properties"].items() if "properties" in part}
    alone = {name: part for name, part in schema["properties"].items() if name not in groups | {"global": {}}}
    lines = [_HEAD + "\n".join(_table({"properties": alone}, "")), ""]
    for name, part in groups.items():
        lines += [f"### `{name}`", "", part["description"], "", *_table(part, name), ""]
    return "\n".join(lines)


def _table(group: dict[str, Any], path: str) -> list[str]:
    return ["| value | meaning | may be | default |", "| --- | --- | --- | --- |", *_rows(group, path)]


def _rows(group: dict[str, Any], path: str) -> Iterator[str]:
    for name, part in group["properties"].items():
        here = f"{path}.{name}" if path else name
        if "properties" in part:
            yield f"| `{here}` | {_cell(part['description'])} | a map | |"
            yield from _rows(part, here)
        else:
            cells = (_cell(part["description"]), _cell(_allowed(part)), _default(here))
            yield f"| `{here}` | {' | '.join(cells)} |"


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value that can be set by itself, with its part of the schema."""
    for name, part in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        if "properties" in part:
            yield from leaves(part, here)
        else:
            yield here, part


def default(path: str) -> Any:
    """What ``values.yaml`` says of a value."""
    found: Any = chart().values
    for name in path.split("."):
        found = found[name]
    return found


def _allowed(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(f"`{each}`" for each in part["enum"])
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    names = {
        "array": "a list",
        "boolean": "true or false",
        "integer": "a whole number",
        "number": "a number",
        "object": "a map",
        "string": "text",
    }
    text = " or ".join(names[kind] for kind in kinds)
    if "maximum" in part and "minimum" in part:
        text += f" from {part['minimum']} to {part['maximum']}"
    elif "minimum" in part:
        text += f" from {part['minimum']} up"
    return text


def _default(path: str) -> str:
    value = default(path)
    return "none" if value in ("", {}, []) else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
