"""Prepare the networks of all functions, each once, in a process of its own (`scaler.serving.prepare`)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rapp.errors import RappError
from scaler.functions import FunctionSpec
from scaler.serving.child import child_environment
from scaler.serving.network import ServedNetwork


class PrepareError(RappError):
    """A network that cannot be served."""


async def prepare_all(functions: Sequence[FunctionSpec], folder: Path) -> dict[str, ServedNetwork]:
    """The networks of functions, as many at a time as there are cores; functions of one file share one.

    Args:
        folder: what workers load goes there, and has to stay.

    Raises:
        PrepareError: one cannot be served; why, and what to do.
    """
    at_once = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    # Whether it can be served is asked for the largest batch, and of no other property of a function.
    asking: dict[Path, FunctionSpec] = {}
    for spec in functions:
        source = _source(spec)
        if source not in asking or spec.max_batch > asking[source].max_batch:
            asking[source] = spec

    async def one(number: int, source: Path, spec: FunctionSpec) -> ServedNetwork:
        async with at_once:
            return await _prepare(source, spec, folder / str(number))

    tasks = [
        asyncio.ensure_future(one(number, source, spec))
        for number, (source, spec) in enumerate(asking.items())
    ]
    try:
        prepared = dict(zip(asking, await asyncio.gather(*tasks), strict=True))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    return {spec.name: prepared[_source(spec)] for spec in functions}


def _source(spec: FunctionSpec) -> Path:
    if spec.network_file is None:
        raise PrepareError(
            f"function {spec.name}: network {spec.network} is a name in a profile table: to be served it must"
            " be an ONNX file"
        )
    return spec.network_file.resolve()


async def _prepare(source: Path, spec: FunctionSpec, folder: Path) -> ServedNetwork:
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "scaler.serving.prepare", str(source), str(folder), str(spec.max_batch),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )  # fmt: skip
    try:
        output, errors = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip().splitlines()
        how = f"ended with exit code {process.returncode}"
        raise PrepareError(f"function {spec.name}: preparing {source} {how}{f': {said[-1]}' if said else ''}")
    answer = json.loads(output)
    if "error" in answer:
        raise PrepareError(f"function {spec.name}: {answer['error']}")
    return ServedNetwork.from_json(answer)
