"""Permissions that bind also when the tests run as root."""

from __future__ import annotations

import ctypes
import os
import struct


def forgo_root_rights() -> None:
    """Make permissions count for root too: no CAP_DAC_OVERRIDE, no CAP_DAC_READ_SEARCH (capabilities(7))."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)
    capabilities = bytearray(24)
    held = (ctypes.c_char * 24).from_buffer(capabilities)
    assert libc.capget(header, held) == 0
    lowest = struct.unpack_from("I", capabilities, 0)[0]
    struct.pack_into("I", capabilities, 0, lowest & ~0b110)
    assert libc.capset(header, held) == 0
