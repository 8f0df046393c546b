"""The floor under a ZeroMQ bridge: a DEALER that echoes the first frame. Argument: the endpoint."""

from __future__ import annotations

import sys

import zmq


def main() -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.bind(sys.argv[1])
    print("ready", flush=True)
    while True:
        frames = socket.recv_multipart(copy=False)
        header = frames[0].bytes
        if header == b"bye":
            break
        if header.startswith(b"stream "):
            for _ in range(int(header[7:])):
                socket.send(b"item")
        else:
            socket.send(header)


if __name__ == "__main__":
    main()
