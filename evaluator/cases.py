"""Cases: what one run of a submission gets, and where cases come from.

Three sources, one `Case`:
- task.yml, the official task folder (`load_task`);
- shape suites, shapes/*.yml, schema in shapes/README.md (`load_suite`);
- case lines, the official text form `m: [96, 128]; n: [128, 256]; k: [256, 512]; g: 2; seed: 1111`
  (`parse_lines`), which the official runner writes into a file and hands to eval.py.

Every mistake in them is a `CaseError` that names file, entry and field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal["test", "benchmark"]
Distribution = Literal["official", "full", "nan_padding"]

KINDS: tuple[str, ...] = get_args(Kind)
DISTRIBUTIONS: tuple[str, ...] = get_args(Distribution)  # the same as reference_inputs.DISTRIBUTIONS
MAX_SEED = 2**63 - 1


class CaseError(ValueError):
    """A case file that cannot be used; the message is `file: entry: field: what is wrong`."""

    def __init__(self, where: str, entry: str, field: str, problem: str) -> None:
        self.where, self.entry, self.field, self.problem = where, entry, field, problem
        super().__init__(": ".join(part for part in (where, entry, field, problem) if part))


@dataclass(frozen=True)
class Limits:
    """What a run of a case may use. None: whatever the caller's default is."""

    seconds: float | None = None


@dataclass(frozen=True)
class Case:
    """Inputs of one run: `reference.generate_input(**case.arguments())`.

    m, n, k have one entry per group. m >= 1, n a positive multiple of 8, k a positive multiple of 64.
    """

    name: str
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    g: int
    seed: int
    distribution: Distribution = "official"
    kind: Kind = "test"
    speed_of_light_us: float | None = None
    limits: Limits = Limits()
    why: str = ""  # what this case is there to catch
    line: str = ""  # the text it was read from, if that was a case line

    @property
    def spec(self) -> str:
        """The case as an official case line; the very text it was read from, if it was read from one."""
        if self.line:
            return self.line
        fields: dict[str, object] = {"m": list(self.m), "n": list(self.n), "k": list(self.k), "g": self.g}
        fields["seed"] = self.seed
        if self.distribution != "official":
            fields["distribution"] = self.distribution
        return "; ".join(f"{key}: {value}" for key, value in fields.items())

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `reference.generate_input`, except the device."""
        arguments: dict[str, Any] = {"m": self.m, "n": self.n, "k": self.k, "g": self.g, "seed": self.seed}
        if self.distribution != "official":  # the official generator has no such parameter
            arguments["distribution"] = self.distribution
        return arguments

    def with_seed(self, seed: int) -> Case:
        """The same case with other inputs; `spec` keeps the text it was read from."""
        return replace(self, seed=seed)


@dataclass(frozen=True)
class Task:
    """The official task folder, as far as an evaluator needs it."""

    tests: tuple[Case, ...]
    benchmarks: tuple[Case, ...]
    description: str
    ranking_by: str
    test_timeout: float  # seconds, for all tests together, as the official runner applies it
    benchmark_timeout: float
    ranked_timeout: float


# --------------------------------------------------------------------------------------------- one entry

_SIZE_RULES = {
    "m": (1, "a positive integer"),
    "n": (8, "a positive multiple of 8"),
    "k": (64, "a positive multiple of 64"),
}
_OFFICIAL_FIELDS = {"m", "n", "k", "g", "seed"}
_LINE_FIELDS = _OFFICIAL_FIELDS | {"distribution"}
_ENTRY_FIELDS = _LINE_FIELDS | {"name", "kind", "speed_of_light_us", "limits", "why", "origin"}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Entry:
    """One mapping of fields, read with errors that say where it stands."""

    def __init__(self, fields: Mapping[str, Any], where: str, entry: str, known: set[str]) -> None:
        self.fields, self.where, self.entry = fields, where, entry
        for field in fields:
            if field not in known:
                raise self.error(str(field), f"unknown field; known are {', '.join(sorted(known))}")

    def error(self, field: str, problem: str) -> CaseError:
        return CaseError(self.where, self.entry, field, problem)

    def required(self, field: str) -> Any:
        if field not in self.fields:
            raise self.error(field, "missing")
        return self.fields[field]

    def sizes(self, field: str) -> int | tuple[int, ...]:
        """A tuple with one size per group, or a single size that stands for every group."""
        step, expected = _SIZE_RULES[field]
        raw = self.required(field)
        values = tuple(raw) if isinstance(raw, (list, tuple)) else (raw,)
        if not values:
            raise self.error(field, "is empty; one size per group is needed")
        for group, value in enumerate(values):
            if not _is_int(value) or value < step or value % step:
                raise self.error(field, f"group {group}: got {value!r}, expected {expected}")
        return values if isinstance(raw, (list, tuple)) else values[0]

    def choice(self, field: str, default: str, choices: tuple[str, ...]) -> Any:
        value = self.fields.get(field, default)
        if value not in choices:
            raise self.error(field, f"got {value!r}, expected one of {', '.join(choices)}")
        return value

    def text(self, field: str, default: str) -> str:
        value = self.fields.get(field, default)
        if not isinstance(value, str) or not value:
            raise self.error(field, f"got {value!r}, expected a text")
        return value

    def positive(self, field: str, value: object) -> float | None:
        if value is None:
            return None
        good = _is_int(value) or isinstance(value, float)
        if not good or not 0 < value < math.inf:  # type: ignore[operator]
            raise self.error(field, f"got {value!r}, expected a positive number")
        return float(value)  # type: ignore[arg-type]

    def seed(self) -> int:
        value = self.required("seed")
        if not _is_int(value) or not 0 <= value <= MAX_SEED:
            raise self.error("seed", f"got {value!r}, expected an integer from 0 to 2**63 - 1")
        return int(value)

    def limits(self) -> Limits:
        raw = self.fields.get("limits", {})
        if not isinstance(raw, Mapping) or set(raw) - {"seconds"}:
            raise self.error("limits", f"got {raw!r}, expected a mapping with the key seconds")
        return Limits(seconds=self.positive("limits.seconds", raw.get("seconds")))

    def check_origin(self) -> None:
        """`origin` is for readers (where the sizes come from); it only has to be a mapping."""
        if not isinstance(self.fields.get("origin", {}), Mapping):
            raise self.error("origin", f"got {self.fields['origin']!r}, expected a mapping")

    def groups(self, m: int | tuple[int, ...], others: dict[str, int | tuple[int, ...]]) -> int:
        """g: stated, or the length of m; every list must have that length."""
        count = self.fields.get("g", len(m) if isinstance(m, tuple) else 1)
        if not _is_int(count) or count < 1:
            raise self.error("g", f"got {count!r}, expected a positive integer")
        for field, sizes in {"m": m, **others}.items():
            if isinstance(sizes, tuple) and len(sizes) != count:
                raise self.error(field, f"has {len(sizes)} entries for {count} groups")
        return int(count)

    def case(self, default_name: str, default_kind: str = "test") -> Case:
        m, n, k = self.sizes("m"), self.sizes("n"), self.sizes("k")
        g = self.groups(m, {"n": n, "k": k})
        self.check_origin()

        def spread(sizes: int | tuple[int, ...]) -> tuple[int, ...]:
            return sizes if isinstance(sizes, tuple) else (sizes,) * g

        return Case(
            name=self.text("name", default_name),
            m=spread(m),
            n=spread(n),
            k=spread(k),
            g=g,
            seed=self.seed(),
            distribution=self.choice("distribution", "official", DISTRIBUTIONS),
            kind=self.choice("kind", default_kind, KINDS),
            speed_of_light_us=self.positive("speed_of_light_us", self.fields.get("speed_of_light_us")),
            limits=self.limits(),
            why=self.text("why", "-") if "why" in self.fields else "",
        )


# --------------------------------------------------------------------------------------------- case lines

_PART = re.compile(r"\s*([a-zA-Z_]+)\s*:\s*(\[[^\]]*\]|\([^)]*\)|[a-zA-Z_]+|[+-]?[0-9]+)\s*")


def _line_value(text: str) -> Any:
    if text[0] in "[(":
        inner = text[1:-1].strip().removesuffix(",")
        return tuple(int(item) for item in inner.split(",")) if inner else ()
    return text if text[0].isalpha() or text[0] == "_" else int(text)


def parse_line(line: str, *, where: str = "case line", number: int = 1, kind: Kind = "test") -> Case:
    """One case in the official text form. Fields m, n, k, g, seed; here also distribution."""
    entry = f"line {number}"
    fields: dict[str, Any] = {}
    for part in line.split(";"):
        matched = _PART.fullmatch(part)
        if not matched:
            raise CaseError(where, entry, "", f"cannot read {part.strip()!r}; expected `key: value`")
        key, text = matched.groups()
        if key in fields:
            raise CaseError(where, entry, key, "given twice")
        try:
            fields[key] = _line_value(text)
        except ValueError:
            raise CaseError(
                where, entry, key, f"got {text}, expected integers between the brackets"
            ) from None
    read = _Entry(fields, where, entry, _LINE_FIELDS)
    read.required("g")
    return replace(read.case(f"{kind} {number - 1}", kind), line=line)


def parse_lines(text: str, *, where: str = "case lines", kind: Kind = "test") -> tuple[Case, ...]:
    """All cases of a text in the official form, one a line. A blank line is an error, as officially."""
    lines = text.splitlines()
    if not lines:
        raise CaseError(where, "", "", "holds no case")
    return tuple(parse_line(line, where=where, number=i, kind=kind) for i, line in enumerate(lines, 1))


# --------------------------------------------------------------------------------------------- YAML files


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml  # here, so that case lines work without it

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CaseError(str(path), "", "", f"cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CaseError(str(path), "", "", f"is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise CaseError(str(path), "", "", "expected a mapping at the top")
    return content


def _entries(content: Mapping[str, Any], field: str, where: str) -> list[Mapping[str, Any]]:
    entries = content.get(field)
    if not isinstance(entries, list) or not entries:
        raise CaseError(where, "", field, "missing or empty; expected a list of cases")
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise CaseError(where, f"{field}[{index}]", "", f"got {entry!r}, expected a mapping")
    return entries


def _speed_of_light(content: Mapping[str, Any], where: str) -> list[Any]:
    """The targets in microseconds, one per benchmark; task.yml says why they stand in a `files` entry."""
    for spec in content.get("files", ()):
        if isinstance(spec, Mapping) and "speed_of_light_us" in spec:
            targets = spec["speed_of_light_us"]
            if isinstance(targets, list) and len(targets) == len(content["benchmarks"]):
                return targets
            raise CaseError(
                where, "files", "speed_of_light_us", f"got {targets!r}, expected one per benchmark"
            )
    return [None] * len(content["benchmarks"])


_TIMEOUTS = ("test_timeout", "benchmark_timeout", "ranked_timeout")


def load_task(path: str | Path = "task.yml") -> Task:
    """Read an official task.yml. Test and benchmark entries may hold m, n, k, g, seed only, as officially."""
    path = Path(path)
    content, where = _read_yaml(path), str(path)
    tests = [
        _Entry(fields, where, f"tests[{i}]", _OFFICIAL_FIELDS).case(f"test {i}")
        for i, fields in enumerate(_entries(content, "tests", where))
    ]
    benchmarks = [
        _Entry(fields, where, f"benchmarks[{i}]", _OFFICIAL_FIELDS).case(f"benchmark {i}", "benchmark")
        for i, fields in enumerate(_entries(content, "benchmarks", where))
    ]
    header = _Entry(content, where, "", set(content))
    targets = [header.positive("speed_of_light_us", target) for target in _speed_of_light(content, where)]
    seconds = {f: header.positive(f, content.get(f, 180)) or 180.0 for f in _TIMEOUTS}
    return Task(
        tests=tuple(tests),
        benchmarks=tuple(replace(c, speed_of_light_us=t) for c, t in zip(benchmarks, targets, strict=True)),
        description=header.text("description", "-"),
        ranking_by=header.choice("ranking_by", "last", ("last", "mean", "geom")),
        **seconds,
    )


def load_suite(path: str | Path) -> tuple[Case, ...]:
    """Read a shape suite; schema in shapes/README.md. Case names must be unique within the file."""
    path = Path(path)
    content, where = _read_yaml(path), str(path)
    _Entry(content, where, "", {"suite", "description", "defaults", "cases"}).text("suite", "")
    defaults = content.get("defaults", {})
    if not isinstance(defaults, Mapping) or "name" in defaults:
        raise CaseError(where, "defaults", "", "expected a mapping of case fields other than name")
    cases: list[Case] = []
    for index, fields in enumerate(_entries(content, "cases", where)):
        entry = f"cases[{index}] ({fields['name']})" if "name" in fields else f"cases[{index}]"
        read = _Entry({**defaults, **fields}, where, entry, _ENTRY_FIELDS)
        read.required("name")
        case = read.case("")
        if any(case.name == other.name for other in cases):
            raise CaseError(where, entry, "name", "is used by an earlier case of this file")
        cases.append(case)
    return tuple(cases)


def load_cases(path: str | Path) -> tuple[Case, ...]:
    """Cases of any file: a task.yml (tests, then benchmarks), a suite (*.yml, *.yaml), or case lines."""
    path = Path(path)
    if path.suffix in (".yml", ".yaml"):
        if "benchmarks" in _read_yaml(path):
            task = load_task(path)
            return task.tests + task.benchmarks
        return load_suite(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(str(path), "", "", f"cannot be read: {error}") from None
    return parse_lines(text, where=str(path))
