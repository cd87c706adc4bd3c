"""PTX text to `Kernel`s (PTX ISA 9.1, chapter 5): what NVVM prints for CuTe-DSL, with inline assembly."""

from __future__ import annotations

import re

from b200sim.faults import Unsupported
from b200sim.ptx.body import Body
from b200sim.ptx.directives import read_directives
from b200sim.ptx.inlining import inline_calls
from b200sim.ptx.syntax import TYPE_BITS, Kernel, ModuleVariable, Parameter, SharedVariable

_COMMENT = re.compile(r'("[^"\n]*")|//[^\n]*|/\*.*?\*/', re.S)  # or a string, which is kept
_FUNCTION = re.compile(r"\.func\s*(?:\(([^)]*)\)\s*)?([\w$]+)\s*(?:\(([^)]*)\))?[^{;]*([{;])")
_TARGET = re.compile(r"^\s*\.target\s+(\w+)", re.M)
_ENTRY = re.compile(r"(?:\.visible\s+|\.weak\s+)?\.entry\s+([\w$]+)\s*\(")
_PARAM = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr[^,)]*?\s)?([\w$%]+)(?:\[(\d+)\])?\s*$"
)
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$%]+)(?:\[(\d*)\])?")
_VARIABLE = re.compile(
    r"^\s*((?:\.visible|\.extern|\.weak|\.common)\s+)?\.(global|const)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
    r"([\w$%]+)(?:\[(\d*)\])?\s*(?:=\s*([^;]*?))?\s*;",
    re.M,
)
_FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')


def parse(text: str) -> dict[str, Kernel]:
    """Parse a PTX module.

    Returns its entries by name, with calls of the module's own functions inlined. NUL bytes, which CuTe-DSL
    leaves in its dumps, are ignored. Raises `Unsupported` for recursion, and for statements that are not PTX
    as described above.
    """
    text = text.replace("\0", "")
    text = _COMMENT.sub(lambda m: m[1] or "\n" * m[0].count("\n"), text)
    files = {int(number): path for number, path in _FILE.findall(text)}
    target = _TARGET.search(text)
    shared = [_shared_variable(m) for m in _SHARED.finditer(text)]
    variables = [_module_variable(m) for m in _VARIABLE.finditer(text)]
    functions = _functions(text, files)
    kernels: dict[str, Kernel] = {}
    for entry in _ENTRY.finditer(text):
        close = text.index(")", entry.end())
        kernel = Kernel(entry[1], _parameters(text[entry.end() : close]), list(shared), list(variables))
        kernel.target = target[1] if target else ""
        start = text.index("{", close)
        kernel.directives = read_directives(text[close:start])
        Body(kernel, files).read(text, start)
        inline_calls(kernel, functions)
        kernels[kernel.name] = kernel
    if not kernels:
        raise Unsupported("the PTX module has no .entry")
    return kernels


def _functions(text: str, files: dict[int, str]) -> dict[str, Kernel]:
    """The functions that the module defines; those that it only declares are the system's."""
    functions: dict[str, Kernel] = {}
    for match in _FUNCTION.finditer(text):
        results, name, arguments, opening = match.groups()
        if opening == "{":
            function = Kernel(name, _parameters(arguments or ""), returns=_parameters(results or ""))
            Body(function, files).read(text, match.end() - 1)
            functions[name] = function
    return functions


def _parameters(text: str) -> list[Parameter]:
    parameters, offset = [], 0
    for declaration in filter(None, (part.strip() for part in text.split(","))):
        match = _PARAM.match(" ".join(declaration.split()))
        if match is None:
            raise Unsupported(f"parameter {declaration!r} of a kernel or function")
        size = TYPE_BITS[match[2]] // 8 * int(match[4] or 1)
        align = int(match[1] or TYPE_BITS[match[2]] // 8)
        offset = -(-offset // align) * align
        parameters.append(Parameter(match[3], offset, size))
        offset += size
    return parameters


def _shared_variable(match: re.Match[str]) -> SharedVariable:
    element = TYPE_BITS[match[2]] // 8
    count = 1 if match[4] is None else int(match[4] or 0)
    return SharedVariable(match[3], int(match[1] or element), element * count)


def _module_variable(match: re.Match[str]) -> ModuleVariable:
    linkage, space, align, kind, name, count, initial = match.groups()
    if linkage and linkage.strip() == ".extern":
        raise Unsupported(f"variable {name} is defined in another module (.extern .{space})")
    element = TYPE_BITS[kind] // 8
    values = [part.strip() for part in (initial or "").strip("{} \n").split(",") if part.strip()]
    data = b"".join(_initial(value, element, name) for value in values)
    size = element * (len(values) if count == "" else int(count or 1))
    return ModuleVariable(name, space, int(align or element), data.ljust(size, b"\0"))


def _initial(text: str, size: int, name: str) -> bytes:
    """One number of an initialiser, little-endian."""
    try:
        number = int(text[2:], 16) if text[:2] in ("0f", "0F", "0d", "0D") else int(text.rstrip("U"), 0)
    except ValueError:
        raise Unsupported(f"initial value {text!r} of variable {name}") from None
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")
