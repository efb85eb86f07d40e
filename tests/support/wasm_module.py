"""The engine's WebAssembly module, in wasmtime: addresses of 32 bits on a machine that has others."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import wasmtime


class WasmModule:
    """An instance of it. A trap, which is what an access outside its memory would be, raises wasmtime.Trap."""

    def __init__(self, module: bytes) -> None:
        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self._store, wasmtime.Module(engine, module), [])
        self._exports = instance.exports(self._store)
        self._memory = self._exports["memory"]
        self.call("_initialize")

    def call(self, name: str, *arguments: int) -> int:
        """One of its functions; addresses come back as signed numbers of 32 bits."""
        return self._exports[name](self._store, *arguments)

    def place(self, data: bytes) -> int:
        """The address of a copy."""
        address = self.call("malloc", max(len(data), 1)) & 0xFFFFFFFF
        assert address
        self._memory.write(self._store, data, address)
        return address

    def read(self, address: int, count: int) -> bytes:
        """Bytes of its memory."""
        return bytes(self._memory.read(self._store, address, address + count))

    def load(self, plan: bytes) -> tuple[int, int, int]:
        """(status, handle, address of the plan)."""
        file, handle = self.place(plan), self.place(bytes(4))
        status = self.call("tdc_load_memory", file, len(plan), handle)
        (made,) = struct.unpack("<I", self.read(handle, 4))
        self.call("free", handle)
        return status, made, file

    def status(self, plan: bytes) -> int:
        """What loading says; it is freed again."""
        status, handle, file = self.load(plan)
        assert (handle == 0) == (status != 0)
        self.call("tdc_free", handle)
        self.call("free", file)
        return status

    def run(self, plan: bytes, inputs: Sequence[np.ndarray], output_bytes: Sequence[int]) -> list[np.ndarray]:
        """Outputs of a batch, as rows of numbers."""
        status, handle, file = self.load(plan)
        assert status == 0
        images = len(inputs[0])
        given = [self.place(np.ascontiguousarray(array).tobytes()) for array in inputs]
        made = [self.place(bytes(images * count)) for count in output_bytes]
        lists = [self.place(struct.pack(f"<{len(places)}I", *places)) for places in (given, made)]
        assert self.call("tdc_run", handle, *lists, images) == 0
        found = [
            np.frombuffer(self.read(place, images * count), np.float32).reshape(images, -1)
            for place, count in zip(made, output_bytes, strict=True)
        ]
        self.call("tdc_free", handle)
        for place in (*given, *made, *lists, file):
            self.call("free", place)
        return found
