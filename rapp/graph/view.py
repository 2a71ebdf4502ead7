"""The summary of an operator graph, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rapp.graph.operator_graph import Operator, OperatorGraph, TensorSpec
from rapp.graph.polynomial import Shape


def summary(graph: OperatorGraph, batch: int, top: int) -> dict[str, Any]:
    """What `rapp graph --json` prints; multiply-adds and operations are counts, sizes are bytes.

    Raises:
        BatchRewriteError: the network serves another batch only.
    """
    total = {
        "macs": graph.macs(batch),
        "flops": graph.flops(batch),
        "input_bytes": graph.total("input_bytes", batch),
        "weight_bytes": graph.total("weight_bytes", batch),
        "output_bytes": graph.total("output_bytes", batch),
        "params": graph.params,
    }
    return {
        "network": graph.name,
        "graph_hash": graph.graph_hash,
        "opset": graph.opset,
        "fixed_batch": graph.fixed_batch,
        "only_batch": graph.only_batch,
        "batch": batch,
        "inputs": [_spec(spec) for spec in graph.inputs],
        "outputs": [_spec(spec) for spec in graph.outputs],
        "operators": len(graph),
        "edges": int(graph.edges.shape[1]),
        "total": total,
        "by_type": [
            _row([op for op in graph.operators if op.op_type == op_type], batch) | {"op_type": op_type}
            for op_type in graph.op_counts
        ],
        "heaviest": [
            _row([op], batch) | {"op_type": op.op_type, "name": op.name, "output": _shapes(op)}
            for op in sorted(graph.operators, key=lambda op: _weight(op, batch), reverse=True)[:top]
        ],
    }


def _weight(op: Operator, batch: int) -> tuple[int, int]:
    return op.macs(batch), op.input_bytes(batch) + op.weight_bytes(batch) + op.output_bytes(batch)


def _row(operators: list[Operator], batch: int) -> dict[str, Any]:
    return {
        "count": len(operators),
        "macs": sum(op.macs(batch) for op in operators),
        "flops": sum(op.flops(batch) for op in operators),
        "input_bytes": sum(op.input_bytes(batch) for op in operators),
        "weight_bytes": sum(op.weight_bytes(batch) for op in operators),
        "output_bytes": sum(op.output_bytes(batch) for op in operators),
        "params": sum(op.params for op in operators),
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": _dims(spec.shape)}


def _dims(shape: Shape) -> list[int | str]:
    return [dim(0) if dim.is_constant else str(dim) for dim in shape]


def _shapes(op: Operator) -> str:
    return ", ".join("x".join(map(str, _dims(shape))) for shape in op.output_shapes)


def print_summary(graph: OperatorGraph, batch: int, top: int, console: Console | None = None) -> None:
    """Print the summary, readable at 80 columns: totals, operators by type, the heaviest operators.

    Raises:
        BatchRewriteError: the network serves another batch only.
    """
    content = summary(graph, batch, top)
    console = console or Console(highlight=False)
    console.print(Text(graph.name, style="bold"), soft_wrap=True)
    for label in ("input", "output"):
        for spec in content[f"{label}s"]:
            shape = " x ".join(map(str, spec["shape"])) or "scalar"
            console.print(Text(f"{label:8}{spec['name']}: {shape} {spec['dtype']}"))
    console.print(Text(f"batch   {_batch(graph)}"))
    console.print(Text(f"hash    {graph.graph_hash}"), soft_wrap=True)
    total = content["total"]
    counts = f"{content['operators']:,} operators, {content['edges']:,} edges"
    console.print(Text(f"graph   {counts}, {_si(total['params'])} parameters, opset {graph.opset}"))
    console.print()
    console.print(Text(f"at batch {batch}: {_si(total['macs'])} multiply-adds (MACs)", style="bold cyan"))
    console.print(_by_type(content))
    if content["heaviest"]:
        console.print(Text("heaviest operators", style="bold cyan"))
        console.print(_heaviest(content))


def _batch(graph: OperatorGraph) -> str:
    if graph.fixed_batch is None:
        return "open (N)"
    if graph.only_batch is None:
        return f"{graph.fixed_batch} in the file, any other by rewriting (N)"
    return f"{graph.fixed_batch} only: {graph.only_batch}"


def _by_type(content: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    total = content["total"]
    footer = _cells(total | {"count": content["operators"]}, total["macs"])
    table.add_column("operator", no_wrap=True, footer="total")
    for heading, cell in zip(("count", "MACs", "", "in MB", "weights MB", "out MB"), footer, strict=True):
        table.add_column(heading, justify="right", no_wrap=True, footer=cell)
    for row in content["by_type"]:
        table.add_row(Text(row["op_type"]), *_cells(row, total["macs"]))
    return table


def _cells(row: dict[str, Any], macs: int) -> list[str]:
    sizes = [f"{row[key] / 1e6:,.2f}" for key in ("input_bytes", "weight_bytes", "output_bytes")]
    return [f"{row['count']:,}", _si(row["macs"]), _share(row["macs"], macs), *sizes]


def _heaviest(content: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operator", no_wrap=True)
    table.add_column("name", overflow="fold")
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("output", no_wrap=True)
    for row in content["heaviest"]:
        share = _share(row["macs"], content["total"]["macs"])
        table.add_row(Text(row["op_type"]), Text(row["name"]), _si(row["macs"]), share, row["output"])
    return table


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if part else ""


def _si(value: float) -> str:
    """Two decimals and k, M, G or T; nothing for 0."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:,.2f} {unit}"
    return f"{value:,.0f}" if value else ""
