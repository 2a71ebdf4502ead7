"""The few calls of the Kubernetes API that the backend and its lease make, by the official client.

Objects go in and out as the JSON that the API speaks: what a newer server adds is kept, not lost in models of
the client's version.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import ValidationError

from rapp.errors import ConfigError, MissingExtraError
from scaler.errors import BackendError

try:
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError
except ModuleNotFoundError as error:
    raise MissingExtraError(str(error.name), "kubernetes") from error

Json = dict[str, Any]

GONE, CONFLICT, NOT_FOUND = 410, 409, 404
TIMEOUT_S = (3.0, 10.0)
"""Of a call: to connect, and to wait for bytes, s."""

CLOCKS_AGREE_S = 2.0
"""Clocks that differ by less are taken as one."""

PAGE = 500
"""Objects a page of a list: what client-go's pager asks for."""

SERVICE_ACCOUNT_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class ApiError(BackendError):
    """The API server refused a call, or could not be reached.

    Args:
        status: of HTTP; 0: no answer. message: what the server says.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)

    @property
    def is_refusal(self) -> bool:
        """Whether the same call would be refused again: it is the request's fault, not the server's."""
        return 400 <= self.status < 500 and self.status not in (401, 408, 409, 429)


class KubernetesApi:
    """Calls within one namespace; nodes are the cluster's.

    Args:
        api: the client, which knows server and credentials. namespace: of pods and leases.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self.namespace = namespace
        self.ahead_s = 0.0
        """How far the server's clock of day, by which pods are dated, is ahead of this machine's, s."""
        self._client = api
        self._core, self._coordination = client.CoreV1Api(api), client.CoordinationV1Api(api)

    @staticmethod
    def connect(namespace: str | None = None, context: str | None = None) -> KubernetesApi:
        """By the service account of this pod, or else by the kubeconfig.

        Args:
            namespace: default: that of the service account or the context, else `default`.
            context: of the kubeconfig, which is used then, also within a pod.

        Raises:
            ConfigError: there is neither.
        """
        configuration = client.Configuration()
        # The controller's loop is what tries again, with its own back-off.
        configuration.retries = False
        found: str | None = None
        try:
            if context is not None:
                raise config.ConfigException("the kubeconfig is asked for")
            config.load_incluster_config(client_configuration=configuration)
            with contextlib.suppress(OSError), open(SERVICE_ACCOUNT_NAMESPACE) as file:  # noqa: PTH123
                found = file.read().strip()
        except config.ConfigException:
            try:
                config.load_kube_config(context=context, client_configuration=configuration)
                contexts, active = config.list_kube_config_contexts()
                chosen = next((one for one in contexts if one["name"] == context), active)
                found = chosen["context"].get("namespace")
            except (config.ConfigException, OSError) as error:
                raise ConfigError(f"kubernetes: no cluster to talk to: {error}: set KUBECONFIG") from error
        return KubernetesApi(client.ApiClient(configuration), namespace or found or "default")

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self._client.configuration.host)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # --- pods and nodes -------------------------------------------------------------------------------------

    def list_pods(self, selector: str) -> tuple[list[Json], str]:
        """The pods with these labels, and the version to watch from."""
        return self._listed(self._core.list_namespaced_pod, self.namespace, label_selector=selector)

    def list_nodes(self, selector: str) -> tuple[list[Json], str]:
        """The nodes with these labels, and the version to watch from."""
        return self._listed(self._core.list_node, label_selector=selector)

    def watch_pods(self, selector: str, version: str, timeout_s: int, stopped: Stopped) -> Iterator[Json]:
        """Changes of pods after a version, until the server ends the stream after `timeout_s`."""
        call, space = self._core.list_namespaced_pod, self.namespace
        return self._watched(
            stopped, timeout_s, call, space, resource_version=version, label_selector=selector
        )

    def watch_nodes(self, selector: str, version: str, timeout_s: int, stopped: Stopped) -> Iterator[Json]:
        """Changes of nodes after a version, until the server ends the stream after `timeout_s`."""
        call = self._core.list_node
        return self._watched(stopped, timeout_s, call, resource_version=version, label_selector=selector)

    def create_pod(self, body: Json) -> Json:
        """Make a pod; what the server made of it."""
        return self._call(self._core.create_namespaced_pod, self.namespace, body)

    def read_pod(self, name: str) -> Json:
        """A pod as it is now."""
        return self._call(self._core.read_namespaced_pod, name, self.namespace)

    def patch_pod(self, name: str, body: Json) -> Json:
        """Merge into a pod; a `metadata.resourceVersion` in it has to be the pod's still."""
        call = self._core.patch_namespaced_pod
        # Newer clients take an object for a list of changes (RFC 6902) unless told, older ones cannot be told
        # and merge; of annotations the two ways to merge make the same.
        is_asked = "_content_type" in inspect.signature(call).parameters
        merge = {"_content_type": "application/merge-patch+json"} if is_asked else {}
        return self._call(call, name, self.namespace, body, **merge)

    def delete_pod(self, name: str, uid: str, grace_s: int | None = None) -> Json:
        """Delete this very pod, not a later one of its name; None: its own time of grace."""
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        return self._call(self._core.delete_namespaced_pod, name, self.namespace, body=body)

    # --- leases ---------------------------------------------------------------------------------------------

    def read_lease(self, name: str) -> Json:
        """A lease as it is now."""
        return self._call(self._coordination.read_namespaced_lease, name, self.namespace)

    def create_lease(self, body: Json) -> Json:
        """Make a lease; a conflict if there is one."""
        return self._call(self._coordination.create_namespaced_lease, self.namespace, body)

    def replace_lease(self, name: str, body: Json) -> Json:
        """Write a lease if it is still of the `metadata.resourceVersion` of `body`, else a conflict."""
        return self._call(self._coordination.replace_namespaced_lease, name, self.namespace, body)

    def _call(self, call: Any, *args: Any, **options: Any) -> Json:
        content, date = _called(call, *args, **options)
        if date is not None:
            ahead_s = date.timestamp() - time.time()
            # The header has whole seconds, and is some milliseconds old.
            self.ahead_s = ahead_s if abs(ahead_s) > CLOCKS_AGREE_S else 0.0
        return content

    def _listed(self, call: Any, *args: Any, **options: Any) -> tuple[list[Json], str]:
        items: list[Json] = []
        more: Json = {}
        while True:
            page = self._call(call, *args, limit=PAGE, **options, **more)
            items += page["items"]
            following = page["metadata"].get("continue")
            if not following:
                return items, str(page["metadata"]["resourceVersion"])
            more = {"_continue": following}

    def _watched(
        self, stopped: Stopped, timeout_s: int, call: Any, *args: Any, **options: Any
    ) -> Iterator[Json]:
        # `kubernetes.watch` would make a model of each object, and fail on one that the client's version
        # finds fault with.
        with _errors_told():
            # Bytes come at least when the server ends the stream: a connection without them is dead.
            response = call(
                *args, **options, watch=True, timeout_seconds=timeout_s, allow_watch_bookmarks=True,
                _preload_content=False, _request_timeout=(TIMEOUT_S[0], timeout_s + TIMEOUT_S[1]),
            )  # fmt: skip
            stopped.response = response
            try:
                if response.status != 200:
                    raise ApiError(response.status, _message(response.status, response.data))
                for line in response:
                    event = _object(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise ApiError(
                            int(status.get("code", 0)), _message(status.get("code"), json.dumps(status))
                        )
                    yield event
            finally:
                stopped.response = None
                response.close()


class Stopped:
    """Ends a watch from another thread."""

    response: Any = None

    def stop(self) -> None:
        """Wake up who waits for the next event, if there is one; else it waits until the stream ends."""
        # urllib3 has it since 2.3.
        shutdown = getattr(self.response, "shutdown", None)
        if shutdown is not None:
            with contextlib.suppress(ValueError, RuntimeError, OSError):
                shutdown()


def _called(call: Any, *args: Any, **options: Any) -> tuple[Json, datetime | None]:
    """The object that a call answers, and when it was answered by the server's clock."""
    with _errors_told():
        response = call(*args, **options, _preload_content=False, _request_timeout=TIMEOUT_S)
        status, data = response.status, response.data
    if not 200 <= status <= 299:
        raise ApiError(status, _message(status, data))
    return _object(data), _date(response.headers.get("Date"))


def _date(text: str | None) -> datetime | None:
    try:
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None


def _object(data: Any) -> Json:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise ApiError(0, f"kubernetes: its answer is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ApiError(0, "kubernetes: its answer is no object")
    return content


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except client.ApiException as error:
        status = int(error.status or 0)
        raise ApiError(status, _message(status, error.body or str(error.reason))) from error
    except ValidationError as error:
        # Newer versions of the client make models of what they are given.
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(422, f"kubernetes: {error.title}: {where}: {first['msg']}") from error
    except (HTTPError, OSError) as error:
        raise ApiError(0, f"kubernetes: the API server cannot be reached: {error}") from error


def _message(status: int, data: Any) -> str:
    """What a `Status` object says, or the beginning of whatever else it is."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
    try:
        text = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        text = " ".join(text.split())[:200]
    return f"kubernetes: {status}: {text}"
