from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.door.preauth import PreAuthTable, groups_of, source_of


def fill(table: PreAuthTable[str], address: str, count: int, name: str = "") -> list[str | None]:
    return [table.enter(f"{name or address}#{number}", groups_of(address)) for number in range(count)]


def test_sources_are_networks() -> None:
    assert source_of("192.0.2.77") == "192.0.2.0/24"
    assert source_of("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert [name for name, _ in groups_of("2001:db8:1:2::9")] == ["2001:db8:1:2::/64", "2001:db8:1::/48"]


def test_one_source_may_fill_a_quiet_table() -> None:
    table: PreAuthTable[str] = PreAuthTable(total=100, per_source=10)
    assert fill(table, "192.0.2.1", 50) == [None] * 50


def test_over_half_full_a_big_source_loses_its_own_oldest() -> None:
    table: PreAuthTable[str] = PreAuthTable(total=100, per_source=10)
    fill(table, "192.0.2.1", 40)
    fill(table, "198.51.100.1", 10)
    assert fill(table, "192.0.2.200", 2) == ["192.0.2.1#0", "192.0.2.1#1"]
    assert fill(table, "203.0.113.1", 1) == [None]


def test_full_the_biggest_source_loses_its_oldest_whoever_comes() -> None:
    table: PreAuthTable[str] = PreAuthTable(total=20, per_source=100)
    fill(table, "198.51.100.1", 5, "small")
    fill(table, "192.0.2.1", 15, "big")
    assert fill(table, "203.0.113.1", 3) == ["big#0", "big#1", "big#2"]
    assert len(table) == 20


def test_many_networks_of_one_site_count_together() -> None:
    """A /48 gets four times the share of a /64, not 65,536 times."""
    table: PreAuthTable[str] = PreAuthTable(total=100, per_source=5)
    fill(table, "192.0.2.1", 50, "office")
    evicted = [table.enter(f"v6#{n}", groups_of(f"2001:db8:1:{n:x}::1")) for n in range(30)]
    assert evicted == [None] * 20 + [f"v6#{n}" for n in range(10)]


def test_who_left_makes_room() -> None:
    table: PreAuthTable[str] = PreAuthTable(total=2, per_source=2)
    fill(table, "192.0.2.1", 2)
    table.leave("192.0.2.1#0")
    table.leave("192.0.2.1#0")
    assert table.enter("new", groups_of("203.0.113.1")) is None
    assert "192.0.2.1#0" not in table
    assert "new" in table


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8:0:1::1", "local"]),
            st.booleans(),
        )
    )
)
def test_the_table_never_overflows_and_forgets_nobody(steps: list[tuple[str, bool]]) -> None:
    table: PreAuthTable[int] = PreAuthTable(total=8, per_source=3)
    inside: set[int] = set()
    for number, (address, leaves) in enumerate(steps):
        if leaves and inside:
            gone = min(inside)
            inside.discard(gone)
            table.leave(gone)
        else:
            victim = table.enter(number, groups_of(address))
            inside.add(number)
            inside.discard(-1 if victim is None else victim)
        assert len(table) == len(inside) <= 8
        assert all(member in table for member in inside)
    for member in inside:
        table.leave(member)
    assert table.oldest_of_the_biggest() is None
