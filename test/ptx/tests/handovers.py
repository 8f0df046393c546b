"""Kernels written so that none of their steps of synchronisation can be missed."""

from __future__ import annotations

import numpy as np
from corpus_cases import Case

__all__ = ["HANDOVERS"]

_HEAD = """.version 8.4
.target sm_80
.address_size 64
.visible .entry handover(.param .u64 in_, .param .u64 out_, .param .u64 flag_)
.reqntid 64
{
  .reg .pred %p<8>;
  .reg .b32 %r<16>, %me, %block;
  .reg .b64 %at, %in, %out, %flag, %back;
  .shared .align 16 .b8 smem[1024];
  ld.param.u64 %in, [in_];
  ld.param.u64 %out, [out_];
  ld.param.u64 %flag, [flag_];
  mov.u32 %me, %tid.x;
  mov.u32 %block, %ctaid.x;
  setp.eq.u32 %p0, %me, 0;
  mul.wide.u32 %at, %me, 4;
  xor.b32 %r0, %me, 63;
  mul.wide.u32 %back, %r0, 4;
"""

# Block 0 turns the input over into the output and raises a flag; block 1 adds 1 to all of it.
_FLAG = """
  add.u64 %in, %in, %at;
  add.u64 %back, %back, %out;
  add.u64 %at, %at, %out;
  setp.ne.u32 %p1, %block, 0;
  @%p1 bra OTHER;
  ld.global.u32 %r1, [%in];
  st.global.u32 [%back], %r1;
  bar.sync 0;
  @!%p0 bra END;
  {release}
  bra.uni END;
OTHER:
  @!%p0 bra MEET;
AGAIN:
  {acquire}
  setp.ne.u32 %p2, %r2, 1;
  @%p2 bra AGAIN;
  {after}
MEET:
  bar.sync 0;
  ld.global.u32 %r3, [%at];
  add.u32 %r3, %r3, 1;
  st.global.u32 [%at], %r3;
END:
  ret;
}}
"""

# Each block writes its row and draws a ticket; the last one adds the rows.
_TICKET = """
  mad.lo.u32 %r1, %block, 64, %me;
  mul.wide.u32 %at, %r1, 4;
  add.u64 %in, %in, %at;
  add.u64 %at, %at, %out;
  ld.global.u32 %r2, [%in];
  st.global.u32 [%at], %r2;
  bar.sync 0;
  @!%p0 bra MEET;
  {ticket}
  st.shared.u32 [smem], %r3;
MEET:
  bar.sync 0;
  ld.shared.u32 %r4, [smem];
  setp.ne.u32 %p1, %r4, 1;
  @%p1 bra END;
  add.u64 %back, %back, %out;
  ld.global.u32 %r5, [%back];
  ld.global.u32 %r6, [%back+256];
  add.u32 %r7, %r5, %r6;
  st.global.u32 [%back], %r7;
  add.u32 %r7, %r7, 1;
  st.global.u32 [%back+256], %r7;
END:
  ret;
}}
"""

# One warp copies for the other one: a barrier at which it doesn't wait says that it has, and
# another one gives the buffer back. Two rounds.
_NAMED = """
  mov.u32 %r1, 0;
  add.u64 %back, %back, %out;
  mov.u32 %r2, smem;
  and.b32 %r3, %me, 31;
  shl.b32 %r3, %r3, 3;
  add.u32 %r2, %r2, %r3;
  cvt.u64.u32 %at, %r3;
  add.u64 %in, %in, %at;
  add.u64 %out, %out, %at;
  setp.ge.u32 %p1, %me, 32;
  @%p1 bra TAKE;
GIVE:
  cp.async.ca.shared.global [%r2], [%in], 8;
  {wait}
  bar.arrive 1, 64;
  bar.sync 2, 64;
  add.u64 %in, %in, 256;
  add.u32 %r1, %r1, 1;
  setp.lt.u32 %p2, %r1, 2;
  @%p2 bra GIVE;
  bra.uni END;
TAKE:
  bar.sync 1, 64;
  xor.b32 %r4, %r2, 8;
  ld.shared.v2.u32 {{%r5, %r6}}, [%r4];
  bar.arrive 2, 64;
  st.global.v2.u32 [%out], {{%r5, %r6}};
  add.u64 %out, %out, 256;
  add.u32 %r1, %r1, 1;
  setp.lt.u32 %p2, %r1, 2;
  @%p2 bra TAKE;
END:
  ret;
}}
"""


def _case(name: str, body: str, out: np.ndarray, flag: int, blocks: int) -> Case:
    return Case(
        name=name,
        ptx=_HEAD + body,
        entry="handover",
        grid=(blocks, 1, 1),
        block=(64, 1, 1),
        shared_bytes=0,
        arguments=[_INPUT, np.zeros_like(out), np.zeros(1, np.uint32)],
        expected={1: out, 2: np.array([flag], np.uint32)},
    )


_INPUT = np.arange(100, 228, dtype=np.uint32)
_FLIPPED = _INPUT[63::-1] + 1
_SUMS = (_INPUT[:64] + _INPUT[64:]).astype(np.uint32)
_PAIRS = _INPUT.reshape(-1, 2, 2)[:, ::-1].reshape(-1).copy()

_RELEASES = {
    "fence": "fence.acq_rel.gpu;\n  st.relaxed.gpu.global.u32 [%flag], 1;",
    "membar": "membar.gl;\n  st.volatile.global.u32 [%flag], 1;",
    "release": "st.release.gpu.global.u32 [%flag], 1;",
    "red": "red.release.gpu.global.add.u32 [%flag], 1;",
}
_ACQUIRES = {
    "fence": ("ld.relaxed.gpu.global.u32 %r2, [%flag];", "fence.acq_rel.gpu;"),
    "membar": ("ld.volatile.global.u32 %r2, [%flag];", "membar.gl;"),
    "acquire": ("ld.acquire.gpu.global.u32 %r2, [%flag];", ""),
    "atom": ("atom.acquire.gpu.global.cas.b32 %r2, [%flag], 1, 1;", ""),
}
_TICKETS = {
    "acq_rel": "atom.acq_rel.gpu.global.add.u32 %r3, [%flag], 1;",
    "fences": "fence.acq_rel.gpu;\n  atom.global.add.u32 %r3, [%flag], 1;\n  fence.acq_rel.gpu;",
}
_WAITS = {
    "wait_all": "cp.async.wait_all;",
    "wait_group": "cp.async.commit_group;\n  cp.async.wait_group 0;",
}

HANDOVERS = [
    *(
        _case(
            f"flag_{release}_{acquire}",
            _FLAG.format(release=_RELEASES[release], acquire=load, after=fence),
            _FLIPPED,
            1,
            2,
        )
        for release in _RELEASES
        for acquire, (load, fence) in _ACQUIRES.items()
    ),
    *(
        _case(
            f"ticket_{name}",
            _TICKET.format(ticket=ticket),
            np.concatenate([_SUMS, _SUMS + 1]),
            2,
            2,
        )
        for name, ticket in _TICKETS.items()
    ),
    *(
        _case(f"named_{name}", _NAMED.format(wait=wait), _PAIRS, 0, 1)
        for name, wait in _WAITS.items()
    ),
]
