"""Calls of the functions that CUDA's runtime brings along (CUDA C++ Programming Guide, "Formatted Output",
"Assertion"). Calls of a module's own functions are inlined before (`ptx.inlining`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import LOCAL_WINDOW, SHARED_WINDOW
from b200sim.isa.local_memory import checked
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.printf import formatted
from b200sim.ptx.binder import LOCAL_BASE, Binder
from b200sim.ptx.syntax import FrameVariable, Instruction, Operand, Vector

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

MAX_STRING = 1 << 16
Arguments = list[FrameVariable]


@instruction("call")
def call(ins: Instruction, binder: Binder) -> Operation:
    """call[.uni] (result), function, (arguments)."""
    check_modifiers(ins, "uni")
    if ins.target in ("malloc", "free"):
        raise Unsupported(f"{ins.target} in a kernel: the simulated B200 has no device heap")
    if ins.target not in _FUNCTIONS:
        raise Unsupported(f"a call of {ins.target}, which this PTX module does not define")
    count, bind = _FUNCTIONS[ins.target]
    results, arguments = (_variables(side, binder) for side in ins.operands)
    if len(arguments) != count:
        raise Unsupported(f"{ins.target} with {len(arguments)} arguments; it has {count}")
    return bind(results, arguments)


def _variables(side: Operand, binder: Binder) -> Arguments:
    assert isinstance(side, Vector)
    found = [binder.argument(item) for item in side.items]
    if None in found:
        raise Unsupported("a call whose arguments are not .param variables")
    return found  # type: ignore[return-value]


def _print(results: Arguments, arguments: Arguments) -> Operation:
    """vprintf(format, buffer): thread after thread; gives the number of arguments, -1 without a format."""
    template, buffer = arguments

    def operation(warp: Warp) -> None:
        texts = []
        for i in warp.active_lanes():
            address, count = _argument(warp, i, template), -1
            if address:
                base = _argument(warp, i, buffer)
                text, count = formatted(
                    _string(warp, i, address),
                    lambda offset, size, i=i, base=base: _bytes(warp, i, base + offset, size, "vprintf"),  # type: ignore[misc]
                    lambda at, i=i: _string(warp, i, at),  # type: ignore[misc]
                )
                texts.append(text)
            for result in results:
                warp.arguments.write(result.offset, count & 0xFFFFFFFF, 4, 1 << i)
        warp.cta.grid.printf(b"".join(texts))
        warp.last_words = (texts[0] if texts else b""), warp.executed

    return operation


def _fail(results: Arguments, arguments: Arguments) -> Operation:
    """__assertfail(message, file, line, function, character size): the launch ends here."""

    def operation(warp: Warp) -> None:
        lanes = warp.active_lanes()
        message, file, line, function, _ = (_argument(warp, lanes[0], item) for item in arguments)
        text, path, name = (
            _string(warp, lanes[0], at).decode(errors="replace") if at else "?"
            for at in (message, file, function)
        )
        raise assertion_failed(warp, f"`{text}` in {name}", f"{path}:{line}")

    return operation


def assertion_failed(warp: Warp, what: str, place: str) -> Fault:
    """The fault of an assertion that does not hold in the active lanes."""
    lanes = warp.active_lanes()
    others = f" and {len(lanes) - 1} more of its warp" if len(lanes) > 1 else ""
    return Fault(
        "assert_failed",
        f"{place}: assertion failed: {what}; {warp.cta.name} thread {warp.thread(lanes[0])}{others}",
    )


_FUNCTIONS: dict[str, tuple[int, Callable[[Arguments, Arguments], Operation]]] = {
    "vprintf": (2, _print),
    "__assertfail": (5, _fail),
}


# -- memory of one thread ---------------------------------------------------------------------------------


def _argument(warp: Warp, index: int, variable: FrameVariable) -> int:
    data = warp.arguments.bytes[index, variable.offset : variable.offset + variable.size]
    return int.from_bytes(data.tobytes(), "little")


def _bytes(warp: Warp, index: int, address: int, nbytes: int, what: str) -> bytes:
    """What one thread finds at a generic address."""
    if address >= LOCAL_WINDOW:
        saved, warp.mask = warp.mask, 1 << index
        try:
            memory = checked(warp, address - LOCAL_WINDOW, nbytes, what)
        finally:
            warp.mask = saved
        start = address - LOCAL_WINDOW - LOCAL_BASE
        return memory.bytes[index, start : start + nbytes].tobytes()
    if address >= SHARED_WINDOW:
        cta, offset = warp.cta.cluster.cta_of(address - SHARED_WINDOW, what)
        cta.check_shared(offset, nbytes, what)
        return cta.smem[offset : offset + nbytes].tobytes()
    return warp.cta.grid.memory.view(address, nbytes).tobytes()


def _string(warp: Warp, index: int, address: int) -> bytes:
    """The text at a generic address, up to its NUL."""
    text = bytearray()
    while len(text) < MAX_STRING:
        byte = _bytes(warp, index, address + len(text), 1, "a string of printf")
        if byte == b"\0":
            return bytes(text)
        text += byte
    raise Fault("printf_format", f"printf: the string at {address:#x} has no end within {MAX_STRING} bytes")
