"""Reads large JSON requests: the child of `scaler.serving.json_process`, `json_main FD PARENT`.

FD is the child's end of a stream, PARENT the gateway. The first message tells the networks; then each holds a
body, and is answered by what it asks for, and its values in binary.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from scaler.serving.child import die_with, give_way_for_memory
from scaler.serving.json_process import LENGTHS
from scaler.serving.network import ServedNetwork
from scaler.serving.protocol import parse_infer
from scaler.serving.requests import BadRequestError

Networks = Mapping[str, tuple[ServedNetwork, int]]


def answered(question: Mapping[str, Any], body: bytes, networks: Networks) -> tuple[bytes, list[memoryview]]:
    """The JSON of an answer, and the values that follow it."""
    network, max_batch = networks[question["function"]]
    length = question["header_length"]
    try:
        call = parse_infer(body, None if length is None else length.encode("latin-1"), network, max_batch)
    except BadRequestError as error:
        return orjson.dumps({"reason": error.fault.reason, "status": int(error.fault.status)}), []
    places = {tensor.name: place for place, tensor in enumerate(network.outputs)}
    answer = {
        "id": call.id,
        "samples": call.samples,
        "outputs": [(places[tensor.name], binary) for tensor, binary in call.outputs],
        "timeout_s": call.timeout_s,
    }
    return orjson.dumps(answer), call.values


def main() -> None:
    """Answer the gateway until it closes its end."""
    descriptor, parent = (int(argument) for argument in sys.argv[1:3])
    die_with(parent)
    give_way_for_memory()
    # An interrupt from the terminal is for the gateway.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rwb") as stream:
        listed, _ = _message(stream.read)
        networks = {
            name: (ServedNetwork.from_json(one["network"]), int(one["max_batch"]))
            for name, one in listed.items()
        }
        while True:
            try:
                question, body = _message(stream.read)
            except EOFError:
                return
            text, values = answered(question, body, networks)
            del body
            stream.write(LENGTHS.pack(len(text), sum(map(len, values))))
            stream.writelines((text, *values))
            stream.flush()


def _message(read: Callable[[int], bytes]) -> tuple[Any, bytes]:
    head, rest = LENGTHS.unpack(_exactly(read, LENGTHS.size))
    return orjson.loads(_exactly(read, head)), _exactly(read, rest)


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    got = read(count)
    if len(got) < count:
        raise EOFError
    return got


if __name__ == "__main__":
    main()
