"""Rights: what they allow, and what two of them allow together."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.ids import SpaceId
from protocol.roles import ROLE_OF_RANK, Rights, Role

SPACES = [SpaceId(bytes([number]) * 16) for number in range(3)]
rights = st.builds(Rights, st.sampled_from(Role), st.none() | st.frozensets(st.sampled_from(SPACES)))


def rank(given: Rights, space: SpaceId) -> int:
    role = given.role_in(space)
    return role.rank if role else 0


@given(rights, rights, st.sampled_from([*SPACES, SpaceId(b"x" * 16)]))
def test_what_both_allow_is_the_lower_role_in_every_space(a: Rights, b: Rights, space: SpaceId) -> None:
    assert rank(a.meet(b), space) == min(rank(a, space), rank(b, space))
    assert a.meet(b) == b.meet(a)
    assert a.meet(a) == a


@given(rights, rights)
def test_meeting_never_adds_a_right(a: Rights, b: Rights) -> None:
    both = a.meet(b)
    assert both.may_govern <= (a.may_govern and b.may_govern)
    assert both.may_write <= (a.may_write and b.may_write)


def test_only_an_admin_of_all_spaces_may_govern() -> None:
    assert Rights(Role.ADMIN).may_govern
    assert not Rights(Role.ADMIN, frozenset(SPACES)).may_govern
    assert not Rights(Role.MEMBER).may_govern


def test_a_reader_and_a_member_of_nothing_may_not_write() -> None:
    assert Rights(Role.MEMBER).may_write and Rights(Role.MEMBER, frozenset(SPACES[:1])).may_write
    assert not Rights(Role.READER).may_write
    assert not Rights(Role.ADMIN, frozenset()).may_write


def test_ranks_go_there_and_back() -> None:
    assert {role: role.rank for role in Role} == {Role.READER: 1, Role.MEMBER: 2, Role.ADMIN: 3}
    assert all(ROLE_OF_RANK[role.rank] is role for role in Role)
