"""The networks that a campaign is asked for: ONNX files, or names in the table that a replay answers from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from profiler.device import NetworkFile
from profiler.memory import estimated_memory_mib
from profiler.plan import check_names
from rapp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Networks:
    """What a campaign profiles.

    Args:
        files: in order, each with a name of its own.
        need_mib: device memory by network and batch, MiB; without an entry: unknown.
    """

    files: tuple[NetworkFile, ...]
    need_mib: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.files)


def read_networks(paths: Sequence[Path], batches: Sequence[int]) -> Networks:
    """Networks in ONNX files, called by the files' stems.

    Args:
        batches: for which the memory is estimated.

    Raises:
        ConfigError: no file, or two of one name.
        GraphError: a file that cannot be read.
    """
    from rapp.graph import OperatorGraph

    files, need_mib = [], {}
    for path in paths:
        graph = OperatorGraph.from_onnx(path)
        served = None if graph.only_batch is None or graph.fixed_batch is None else (graph.fixed_batch,)
        files.append(NetworkFile(path.stem, path, graph.graph_hash, served))
        need_mib[path.stem] = {
            batch: estimated_memory_mib(graph, batch)
            for batch in batches
            if served is None or batch in served
        }
    return Networks(tuple(files), need_mib)


def named_networks(asked: Sequence[str], known: Sequence[NetworkFile], batches: Sequence[int]) -> Networks:
    """Networks of a table, by name or by ONNX file; all of them if none is asked for.

    A file is the network whose graph it has, under whatever name; where the table tells no hash, the one
    that is called like the file.

    Raises:
        ConfigError: a name that the table does not have, with the nearest, or a file of another network.
        GraphError: a file that cannot be read.
    """
    if not asked:
        return Networks(tuple(known))
    by_name = {network.name: network for network in known}
    files: list[NetworkFile] = []
    need_mib: dict[str, Mapping[int, float]] = {}
    for name in asked:
        if name in by_name:
            files.append(by_name[name])
        elif name.endswith(".onnx"):
            read = read_networks([Path(name)], batches)
            files.append(_match(read.files[0], known))
            need_mib[files[-1].name] = read.need_mib[read.files[0].name]
        else:
            raise ConfigError(f"the table has no network {name!r}{_near(name, by_name)}")
    return Networks(tuple(files), need_mib)


def _match(file: NetworkFile, known: Sequence[NetworkFile]) -> NetworkFile:
    same = [network for network in known if network.graph_hash == file.graph_hash]
    called = [network for network in known if network.name == file.name]
    if len(same) > 1:
        same = [network for network in same if network.name == file.name] or same
    if same:
        # Its graph is in the file: adaptive sampling reads it.
        return replace(same[0], path=file.path)
    if called and called[0].graph_hash is None:
        return NetworkFile(file.name, file.path, file.graph_hash, file.batches)
    if called:
        raise ConfigError(f"{file.path}: the table's {file.name} is another network: their graphs differ")
    raise ConfigError(f"{file.path}: the table has no network of this graph, and none called {file.name}")


def _near(name: str, known: Mapping[str, object]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    first = ", ".join(list(known)[:3])
    return f" (near: {', '.join(close)})" if close else f"; it has {len(known)}: {first}, ..."
