"""Templates of pods, from YAML: one for all functions, or one for some of them by their name.

apiVersion: v1
kind: Pod
metadata: {labels: {rapp/function: classify}}    # without this label: for all others
spec:
  containers:
    - name: worker                               # the first one serves
      image: registry.example/worker:1
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from rapp.errors import DataError
from scaler.backends.kubernetes_api import Json
from scaler.backends.kubernetes_pods import FUNCTION
from scaler.errors import BackendError

MOST_BYTES = 1_000_000
"""etcd takes no object above 1.5 MiB."""


class Templates:
    """Pods to make, by function.

    Args:
        by_function: templates; that of "" is for all functions without one.
    """

    def __init__(self, by_function: Mapping[str, Json]) -> None:
        self._by_function = dict(by_function)

    @staticmethod
    def read(path: str | Path) -> Templates:
        """Read a file of one or several YAML documents.

        Raises:
            DataError: it cannot be read, or a document is no pod with a container.
        """
        file = Path(path)
        try:
            text = file.read_bytes()
            if len(text) > MOST_BYTES:
                raise DataError(file, f"it has more than {MOST_BYTES:,} bytes")
            documents = [one for one in yaml.safe_load_all(text) if one is not None]
        except OSError as error:
            raise DataError(file, f"cannot be read: {error.strerror or error}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise DataError(file, f"is no YAML: {' '.join(str(error).split())}") from error
        found: dict[str, Json] = {}
        for number, one in enumerate(documents, 1):
            where = f"document {number}"
            fault = _fault(one)
            if fault is not None:
                raise DataError(file, fault, where=where)
            function = str(((one.get("metadata") or {}).get("labels") or {}).get(FUNCTION, ""))
            if function in found:
                raise DataError(
                    file, f"there are two templates for {function or 'all functions'}", where=where
                )
            found[function] = one
        if not found:
            raise DataError(file, "holds no pod")
        return Templates(found)

    def missing(self, functions: Mapping[str, object]) -> list[str]:
        """The functions that have no template."""
        return [name for name in functions if "" not in self._by_function and name not in self._by_function]

    def of(self, function: str) -> Json:
        """The template of a function; it is not to be changed.

        Raises:
            BackendError: it has none.
        """
        found = self._by_function.get(function, self._by_function.get(""))
        if found is None:
            raise BackendError(f"no template of a pod is for {function}")
        return found


def _fault(one: object) -> str | None:
    if not isinstance(one, dict) or one.get("kind") != "Pod":
        return "is no manifest of kind Pod"
    spec = one.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    if not isinstance(containers, list) or not containers or not isinstance(containers[0], dict):
        return "spec.containers: a pod needs one that serves"
    metadata = one.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("labels") or {}, dict):
        return "metadata.labels: is no mapping"
    return None
