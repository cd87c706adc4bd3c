# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Cases of brx.idx: lanes that go different ways by a table of labels, and meet again."""

from __future__ import annotations

from collections.abc import Iterator

from silicon_case import LANES, Case, random_of

START = """
.reg .b64 %in, %out, %l; .reg .b32 %lane, %i, %n, %turn, %sum, %mask, %x<8>; .reg .pred %p, %q;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %lane, %tid.x; mul.wide.u32 %l, %lane, 16;
add.s64 %in, %in, %l; add.s64 %out, %out, %l; ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in]; mov.b32 %sum, 0;
"""
FINISH = "st.global.v2.b32 [%out], {%i, %sum}; ret;"


def case(name: str, body: str, about: str = "") -> Case:
    data = random_of(f"branches/{name}").integers(0, 256, 16 * LANES).astype("uint8")
    return Case(f"branches/{name}", START + body + FINISH, data, 16 * LANES, about=about)


def table(name: str, ways: int) -> str:
    return f"{name}: .branchtargets " + ", ".join(f"{name}{way}" for way in range(ways)) + ";"


def legs(name: str, ways: int, leg: str, end: str) -> str:
    """`leg` at each label, WAY its number."""
    return "".join(f"{name}{way}: {leg.replace('WAY', str(way + 1))} bra {end}; " for way in range(ways))


ADD = "mad.lo.u32 %sum, %sum, 31, WAY;"
#: The lanes of a leg are counted and their values added: they must be there together.
TOGETHER = (
    "vote.sync.ballot.b32 %x4, 1, %mask; redux.sync.add.s32 %x5, %x1, %mask; mad.lo.u32 %sum, %x5, WAY, %x4;"
)


def cases() -> Iterator[Case]:
    for ways in (1, 2, 3, 5, 8, 13, 32):
        jump = (
            f"{table('T', ways)} rem.u32 %i, %x0, {ways}; brx.idx %i, T; {legs('T', ways, ADD, 'END')} END: "
        )
        yield case(f"{ways} ways", jump)
    for ways in (2, 5, 9):
        body = f"{table('T', ways)} rem.u32 %i, %x0, {ways}; match.any.sync.b32 %mask, %i, -1; brx.idx %i, T; {legs('T', ways, TOGETHER, 'END')} END: bar.warp.sync -1; "
        yield case(f"{ways} ways, together", body, "lanes of one index vote and add among themselves")
    loop = "mov.b32 %i, 0; AGAIN: setp.ge.u32 %p, %i, 6; @%p bra END; {turn} add.u32 %i, %i, 1; {jump} {legs} END: "
    turn = "add.u32 %turn, %x0, %i; rem.u32 %turn, %turn, 4;"
    yield case(
        "in a loop",
        table("T", 4) + loop.format(turn=turn, jump="brx.idx %turn, T;", legs=legs("T", 4, ADD, "AGAIN")),
    )
    uniform = loop.format(
        turn="mov.b32 %turn, %i;", jump="brx.idx.uni %turn, T;", legs=legs("T", 6, ADD, "AGAIN")
    )
    yield case("uniform", table("T", 6) + uniform, "all lanes take each way once")
    guarded = f"{table('T', 3)} rem.u32 %i, %x0, 3; and.b32 %n, %x1, 1; setp.eq.u32 %p, %n, 0; @%p brx.idx %i, T; add.u32 %sum, %sum, 1000; bra END; {legs('T', 3, ADD, 'END')} END: "
    yield case("guarded", guarded, "lanes of a false predicate go on")
    two = f"{table('T', 3)} {table('U', 4)} rem.u32 %i, %x0, 3; rem.u32 %n, %x1, 4; brx.idx %i, T; {legs('T', 3, ADD, 'NEXT')} NEXT: brx.idx %n, U; {legs('U', 4, ADD, 'END')} END: "
    yield case("one after the other", two)
    inner = f"{{ .reg .b32 t; rem.u32 t, %x1, 3; {table('T', 3)} brx.idx t, T; {legs('T', 3, ADD, 'DONE')} DONE: }}"
    nested = f"{table('T', 2)} rem.u32 %i, %x0, 2; brx.idx %i, T; T0: {inner} bra END; T1: {inner} {inner} bra END; END: "
    yield case("one inside the other", nested, "scopes with labels of the same names")
