"""The executor and the sender without threads: the tests take their turns for them."""

from __future__ import annotations

from collections import deque

import pytest
import zmq

from marlin.worker.context import CallContext
from marlin.worker.executor import Executor
from marlin.worker.handlers import find_handler, load_handlers
from marlin.worker.protocol import DEFAULT_LIMITS
from marlin.worker.router import Router
from marlin.worker.sender import Sender
from marlin.worker.session import SLOW_BACKLOG, Outgoing, RunningCall, Session
from marlin.worker.waker import Waker


def _stream(session: Session) -> RunningCall:
    load_handlers()
    call = RunningCall(
        session,
        1,
        find_handler("python.iterate"),
        CallContext(session, None),
        ["itertools", ["count"], []],
        {},
        2**60,
    )
    session.calls[call.id] = call
    return call


def _take_turns(executor: Executor, count: int) -> None:
    for _ in range(count):
        executor.stop()
        executor.run()


def test_a_stream_waits_while_the_io_thread_gets_no_turn() -> None:
    session = Session(b"client", DEFAULT_LIMITS, None)
    outbox: deque[Outgoing] = deque()
    executor = Executor(outbox, lambda: None)
    call = _stream(session)
    executor.submit(call)
    _take_turns(executor, 2 * SLOW_BACKLOG)
    assert len(outbox) == SLOW_BACKLOG + 1
    assert call.state == "parked"


def test_a_stream_that_waited_goes_on_once_the_outbox_is_sent(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("socket")
    directory.chmod(0o700)
    endpoint = f"ipc://{directory}/s"
    router = Router(endpoint, DEFAULT_LIMITS, Waker())
    context = zmq.Context()
    peer = context.socket(zmq.DEALER)
    try:
        peer.setsockopt(zmq.ROUTING_ID, b"client")
        peer.connect(endpoint)
        peer.send(b"hello")
        assert router.receive().identity == b"client"
        session = Session(b"client", DEFAULT_LIMITS, None)
        call = _stream(session)
        gone: list[Session] = []
        sender = Sender(router, gone.append, lambda slow: executor.resume(call))
        executor = Executor(sender.outbox, lambda: None)
        executor.submit(call)
        _take_turns(executor, 2 * SLOW_BACKLOG)
        assert call.state == "parked"
        sender.flush([session])
        assert not sender.outbox
        assert not session.is_slow
        _take_turns(executor, 1)
        assert len(sender.outbox) == 1
        assert not gone
    finally:
        peer.close(linger=0)
        context.term()
        router.close()
