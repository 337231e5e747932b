"""Who belongs to a network: the rules one by one, each with a sentence and the smallest case."""

import pytest

from protocol.commit import Commit, Header
from protocol.cuts import Cut, Cuts
from protocol.errors import LocalMisuse
from protocol.ids import author_of
from protocol.membership import (
    Fault,
    Judgement,
    Link,
    Members,
    Rights,
    Role,
    Standing,
    decode_genesis,
    found_network,
    read_system_commit,
)
from protocol.statements import Admit, Genesis, Recover, Revoke, ask_admission
from tests.protocol.membership_cases import (
    ADMIT_JOE,
    ADMIT_KIM,
    DEMOTE,
    INVITE,
    REVOKE,
    REVOKE_ALL,
    kept,
    said_now,
)
from tests.protocol.membership_world import (
    ADMINS,
    EXPIRES_MS,
    GENESIS,
    LAST,
    OTHER_SPACE,
    SETUP,
    SPACE,
    SYSTEM,
    Said,
    admit,
    grant,
    invite,
    keys,
    life,
    members,
    next_by,
    node,
    recover,
    revoke,
    roles,
    say,
)

STANDS, CUT, INVALID = Standing.STANDS, Standing.CUT, Standing.INVALID
UPROOTED, SUSPENDED, FORKED = Standing.UPROOTED, Standing.SUSPENDED, Standing.FORKED
HASH = bytes(32)


def bob_writes(
    found: Members, seq: int = 1, *, digest: bytes = HASH, heads: tuple[Said, ...] = ()
) -> Judgement:
    """The verdict on a commit of data by bob, who has seen the setup or just these heads."""
    seen = heads or tuple(LAST.values())
    return found.judge(SPACE, LAST["bob"].read.author, seq, digest, [said.link for said in seen])


# -- a network of one ----------------------------------------------------------------------------------------


def test_a_network_of_one_has_its_founder_as_its_only_member() -> None:
    alone = Members.of_genesis(GENESIS)
    assert alone.roles == {node("ann"): Role.ADMIN}
    assert alone.role_of(node("ann")) is Role.ADMIN and alone.role_of(node("bob")) is None
    assert alone.heads == ()


def test_a_genesis_is_found_again_in_its_body() -> None:
    founded = found_network(node("bob"), keys("network"), 5, bytes(16))
    assert decode_genesis(founded.body) == founded
    assert founded.network_id != GENESIS.network_id


def test_after_the_setup_everybody_has_the_role_of_the_ticket() -> None:
    assert roles(members()) == {**dict.fromkeys(ADMINS, "admin"), "mia": "member"}
    assert all(standing is STANDS for said in SETUP.values() for standing in members().standings(said.link))


# -- roles ---------------------------------------------------------------------------------------------------


def test_a_role_is_that_of_the_causal_past() -> None:
    lowered = said_now("ann", DEMOTE, "bob")
    found = members(lowered)
    assert found.role_of(node("bob")) is Role.MEMBER
    assert found.role_at(node("bob"), [LAST["ann"].link]) is Role.ADMIN
    assert found.role_at(node("bob"), [SETUP["a1"].link]) is None
    assert found.role_at(node("bob"), [lowered.link]) is Role.MEMBER


def test_what_was_made_before_stays_what_it_was() -> None:
    before = members()
    after = before.with_commits([said_now("ann", REVOKE, "bob").read])
    assert before.role_of(node("bob")) is Role.ADMIN and not before.is_revoked(node("bob"))
    assert after.role_of(node("bob")) is None and after.is_revoked(node("bob"))


def test_a_role_can_be_limited_to_spaces() -> None:
    found = members(next_by("ann", grant("mia", Role.ADMIN, frozenset({SPACE}))))
    assert found.role_of(node("mia"), SPACE) is Role.ADMIN
    assert found.role_of(node("mia"), OTHER_SPACE) is None
    assert found.fault(node("mia"), invite("ticket of eve")) is Fault.NOT_ADMIN  # not of the whole network
    assert found.fault(node("mia"), admit("ticket of ann", "joe")) is None


def test_an_invitation_can_be_limited_to_spaces() -> None:
    asked = next_by(
        "ann", invite("seat of joe", Role.MEMBER, frozenset({OTHER_SPACE})), admit("seat of joe", "joe")
    )
    assert members(asked).rights_of(node("joe")) == Rights(Role.MEMBER, frozenset({OTHER_SPACE}))


def test_a_later_grant_replaces_an_earlier_one() -> None:
    first = next_by("bob", grant("mia", Role.READER))
    second = next_by("cat", grant("mia", Role.ADMIN), seen=[first])
    assert members(first, second).role_of(node("mia")) is Role.ADMIN


# -- valid ---------------------------------------------------------------------------------------------------


def test_faults_say_what_is_missing() -> None:
    found = members(said_now("ann", REVOKE, "dan"), said_now("bob", ADMIT_JOE, ""))
    ours = node("cat")
    assert found.fault(ours, grant("mia", Role.READER)) is None
    assert found.fault(ours, grant("eve", Role.READER)) is Fault.STRANGER
    assert found.fault(ours, grant("dan", Role.READER)) is Fault.REVOKED
    assert found.fault(ours, revoke("eve")) is Fault.STRANGER
    assert found.fault(ours, revoke("dan")) is None  # again, with a lower cut
    assert found.fault(ours, admit("ticket of ann", "kim")) is Fault.TICKET_USED
    assert found.fault(ours, admit("ticket of eve", "kim")) is Fault.NO_INVITATION
    assert found.fault(ours, admit("ticket of dan", "kim")) is Fault.NO_INVITATION  # dan is out
    assert found.fault(ours, admit("ticket of bob", "mia")) is Fault.KNOWN
    assert found.fault(ours, admit("ticket of bob", "kim")) is None
    assert found.fault(node("mia"), invite("ticket of eve")) is Fault.NOT_ADMIN
    assert found.fault(node("dan"), invite("ticket of eve")) is Fault.NOT_ADMIN
    assert found.fault(node("eve"), admit("ticket of bob", "kim")) is Fault.NOT_MEMBER
    assert found.fault(ours, found_network(ours, keys("network"), 5, bytes(16))) is Fault.OTHER_NETWORK


def test_a_genesis_said_again_means_nothing() -> None:
    copied = say("bob", GENESIS.body, incarnation=2)
    other = say("bob", found_network(node("bob"), keys("network"), 5, bytes(16)).body, incarnation=2)
    late = say("ann", invite("ticket of eve"), GENESIS.body, incarnation=2)
    assert members(copied).faults(copied.link) == (Fault.OTHER_NETWORK,)
    assert members(other).faults(other.link) == (Fault.OTHER_NETWORK,)
    assert members(late).faults(late.link)[1] is Fault.SILENT
    assert roles(members(copied, late)) == roles(members())


def test_an_unreadable_body_says_nothing_and_spoils_nothing() -> None:
    odd = next_by("bob", b"\xff", b"", invite("ticket of eve"))
    assert members(odd).faults(odd.link) == (Fault.SILENT, Fault.SILENT, None)
    assert members(odd).standings(odd.link) == (INVALID, INVALID, STANDS)


def test_a_statement_sees_those_before_it_in_its_commit() -> None:
    both = next_by("ann", invite("seat of joe"), admit("seat of joe", "joe"), grant("joe", Role.READER))
    assert members(both).role_of(node("joe")) is Role.READER
    turned = next_by("ann", admit("seat of joe", "joe"), invite("seat of joe"))
    assert members(turned).faults(turned.link) == (Fault.NO_INVITATION, None)


def test_a_statement_with_a_forged_proof_says_nothing() -> None:
    good = admit("ticket of ann", "joe")
    forged = Admit(good.ticket_key, good.joiner, good.ticket_proof, bytes(64))
    said = next_by("bob", forged)
    assert said.read.statements == (None,)
    assert members().fault(node("bob"), forged) is Fault.NO_INVITATION
    elsewhere = ask_admission(keys("ticket of ann"), keys("joe"), bytes(32))
    assert next_by("bob", elsewhere).read.statements == (None,)


# -- revocations ---------------------------------------------------------------------------------------------


def test_mutual_revocations_both_stand() -> None:
    one, other = said_now("bob", REVOKE, "cat"), said_now("cat", REVOKE, "bob")
    found = members(one, other)
    assert found.standings(one.link) == found.standings(other.link) == (STANDS,)
    assert roles(found) == {"ann": "admin", "dan": "admin", "mia": "member"}


def test_a_ring_of_revocations_stands_whole() -> None:
    ring = [said_now(a, REVOKE, b) for a, b in zip(ADMINS, (*ADMINS[1:], ADMINS[0]), strict=True)]
    found = members(*ring)
    assert all(found.standings(said.link) == (STANDS,) for said in ring)
    assert roles(found) == {"mia": "member"}


def test_a_revoked_node_counts_up_to_the_cut_in_each_space() -> None:
    last = LAST["bob"].read
    left = Cuts.at_heads([(SYSTEM, last.author, 1, last.hash), (SPACE, last.author, 3, b"3" * 32)])
    found = members(next_by("ann", Revoke(node("bob"), left)))
    assert [bob_writes(found, seq, digest=b"3" * 32).standing for seq in (1, 2, 3, 4)] == [STANDS] * 3 + [CUT]
    assert bob_writes(found, 3, digest=b"4" * 32).standing is CUT
    assert bob_writes(found, 1).role is Role.ADMIN
    new_life = author_of(node("bob"), life(2))
    heads = [said.link for said in LAST.values()]
    assert found.judge(SPACE, new_life, 1, HASH, heads).standing is CUT
    assert found.judge(OTHER_SPACE, last.author, 1, HASH, heads).standing is CUT
    assert found.cuts_of(node("bob")) == (left,) and found.cuts_of(node("cat")) == ()


def test_a_node_that_has_seen_its_revocation_has_no_right_at_all() -> None:
    last = LAST["bob"].read
    left = Cuts((Cut(SPACE, last.author[32:], 9, HASH),))
    out = next_by("ann", Revoke(node("bob"), left))
    assert bob_writes(members(out), 5).standing is STANDS
    assert bob_writes(members(out), 5, heads=(out,)) == Judgement(INVALID, None)


def test_nothing_brings_a_revoked_key_back() -> None:
    out = said_now("ann", REVOKE, "bob")
    by_ticket = next_by("cat", invite("ticket of eve"), admit("ticket of eve", "bob"), seen=[out])
    granted = next_by("dan", grant("bob", Role.ADMIN))
    recovered = say("bob", recover(), seen=[out, *LAST.values()], after=LAST["bob"])
    for said in (by_ticket, granted, recovered):
        assert members(out, said).rights_of(node("bob")) is None


def test_whoever_rested_on_something_cut_falls_with_it() -> None:
    invited = next_by("bob", invite("seat of joe", Role.ADMIN), admit("seat of joe", "joe"))
    by_joe = say("joe", grant("mia", Role.ADMIN), seen=[invited])
    data = author_of(node("joe"), life(1))
    together = members(invited, by_joe)
    assert roles(together)["mia"] == "admin"
    assert together.judge(SPACE, data, 1, HASH, [invited.link]) == Judgement(STANDS, Role.ADMIN)
    cut_below = members(invited, by_joe, said_now("ann", REVOKE, "bob"))
    assert cut_below.standings(invited.link) == (CUT, CUT)
    assert cut_below.standings(by_joe.link) == (UPROOTED,)
    assert cut_below.judge(SPACE, data, 1, HASH, [invited.link]) == Judgement(UPROOTED, None)
    cut_above = members(invited, by_joe, next_by("ann", revoke("bob", invited), seen=[invited]))
    assert cut_above.standings(by_joe.link) == (STANDS,)
    assert cut_above.judge(SPACE, data, 1, HASH, [invited.link]) == Judgement(STANDS, Role.ADMIN)


def test_what_falls_takes_with_it_whatever_rested_on_that_however_far() -> None:
    said = [next_by("bob", invite("seat of joe", Role.ADMIN))]
    said.append(next_by("cat", admit("seat of joe", "joe"), seen=said))
    said.append(say("joe", invite("seat of kim", Role.ADMIN), seen=said))
    said.append(next_by("dan", admit("seat of kim", "kim"), seen=said))
    said.append(say("kim", invite("seat of zoe"), seen=said))
    said.append(next_by("mia", admit("seat of zoe", "zoe"), seen=said))
    assert members(*said).role_of(node("zoe")) is Role.MEMBER
    found = members(*said, said_now("ann", REVOKE, "bob"))
    assert [found.standings(each.link) for each in said] == [(CUT,)] + [(UPROOTED,)] * 5
    assert found.role_of(node("zoe")) is None


def test_a_statement_rests_on_what_stood_in_its_own_past() -> None:
    """dan's right never rested on the demotion, which was cut when dan spoke; so it does not now."""
    lowered = next_by("cat", grant("dan", Role.MEMBER))
    raised = next_by("bob", grant("dan", Role.ADMIN), seen=[lowered])
    out = next_by("ann", kept("cat"))
    by_dan = next_by("dan", revoke("mia"), seen=[lowered, raised, out])
    assert members(lowered, raised, out).standings(lowered.link) == (CUT,)
    recovered = say("eve", recover(kept("bob")), seen=LAST.values())
    found = members(lowered, raised, out, by_dan, recovered)
    assert found.standings(raised.link) == (CUT,)
    assert found.standings(by_dan.link) == (STANDS,)


def test_a_grant_gives_the_uprooted_a_new_root_from_then_on() -> None:
    invited = next_by("bob", invite("seat of joe"), admit("seat of joe", "joe"))
    gone = said_now("ann", REVOKE, "bob")
    again = next_by("cat", grant("joe", Role.MEMBER), seen=[invited, gone])
    found = members(invited, gone, again)
    joe = author_of(node("joe"), life(1))
    assert found.role_of(node("joe")) is Role.MEMBER
    assert found.judge(SPACE, joe, 1, HASH, [invited.link]).standing is UPROOTED
    assert found.judge(SPACE, joe, 2, HASH, [again.link]).standing is STANDS


def test_a_commit_counts_with_the_lower_of_both_roles() -> None:
    raised = next_by("bob", grant("mia", Role.ADMIN))
    mia = author_of(node("mia"), life(1))
    found = members(raised)
    assert found.judge(SPACE, mia, 1, HASH, [raised.link]).role is Role.ADMIN
    found = members(raised, said_now("ann", REVOKE, "bob"))  # the grant is cut, the admission is not
    assert found.judge(SPACE, mia, 1, HASH, [raised.link]) == Judgement(STANDS, Role.MEMBER)


def test_a_cut_that_voids_a_demotion_does_not_make_good_what_was_invalid() -> None:
    lowered = said_now("bob", DEMOTE, "cat")
    by_cat = next_by("cat", grant("mia", Role.ADMIN), seen=[lowered])
    found = members(lowered, by_cat, said_now("ann", REVOKE, "bob"))
    assert found.standings(lowered.link) == (CUT,)
    assert found.role_of(node("cat")) is Role.ADMIN
    assert found.standings(by_cat.link) == (INVALID,)


# -- tickets -------------------------------------------------------------------------------------------------


def test_a_ticket_expires_for_the_node_that_admits_and_for_no_verdict() -> None:
    asked = admit("ticket of ann", "joe")
    found = members()
    assert found.admission_fault(node("mia"), asked, EXPIRES_MS - 1) is None
    assert found.admission_fault(node("mia"), asked, EXPIRES_MS) is Fault.EXPIRED
    assert found.fault(node("mia"), asked) is None
    assert found.admission_fault(node("eve"), asked, EXPIRES_MS) is Fault.NOT_MEMBER
    assert [each.ticket_key for each in found.invites_of(asked.ticket_key)] == [asked.ticket_key]
    assert found.invites_of(node("ticket of eve")) == ()


def test_two_uses_of_a_ticket_made_apart_suspend_both_and_all_they_did() -> None:
    joe_in, kim_in = said_now("bob", ADMIT_JOE, ""), said_now("cat", ADMIT_KIM, "")
    joe = author_of(node("joe"), life(1))
    assert members(joe_in).judge(SPACE, joe, 1, HASH, [joe_in.link]).standing is STANDS
    found = members(joe_in, kim_in)
    assert found.is_suspended(node("joe")) and found.is_suspended(node("kim"))
    assert found.rights_of(node("joe")) is None
    assert found.judge(SPACE, joe, 1, HASH, [joe_in.link]) == Judgement(SUSPENDED, None)
    chosen = next_by("dan", grant("joe", Role.READER), seen=[joe_in, kim_in])
    found = members(joe_in, kim_in, chosen)
    assert roles(found) | {"joe": "reader", "kim": "suspended"} == roles(found)
    # What joe wrote before counts again, with the role of then.
    assert found.judge(SPACE, joe, 1, HASH, [joe_in.link]) == Judgement(STANDS, Role.MEMBER)
    # Having seen the dispute and not the grant, joe had no right, and never will have had.
    assert found.judge(SPACE, joe, 2, HASH, [joe_in.link, kim_in.link]) == Judgement(INVALID, None)


def test_a_second_ticket_keeps_a_node_out_of_the_dispute_over_the_first() -> None:
    joe_in, kim_in = said_now("bob", ADMIT_JOE, ""), said_now("cat", ADMIT_KIM, "")
    by_other = next_by("dan", admit("ticket of cat", "joe"))
    found = members(joe_in, kim_in, by_other)
    assert not found.is_suspended(node("joe")) and found.is_suspended(node("kim"))


def test_an_invitation_copied_by_another_admin_gives_the_lower_role_of_both() -> None:
    copied = next_by("bob", invite("ticket of ann", Role.READER))
    used = next_by("cat", admit("ticket of ann", "joe"), seen=[copied])
    assert members(copied, used).role_of(node("joe")) is Role.READER
    assert members(copied, used, said_now("ann", REVOKE, "bob")).role_of(node("joe")) is Role.MEMBER


# -- recovery ------------------------------------------------------------------------------------------------


def test_the_network_key_outranks_all() -> None:
    thief = next_by("bob", *(kept(name) for name in ("ann", "cat", "dan")))
    assert roles(members(thief)) == {"bob": "admin", "mia": "member"}
    recovered = say("eve", recover(kept("bob")), seen=[thief, *LAST.values()])
    found = members(thief, recovered)
    assert found.standings(thief.link) == (CUT, CUT, CUT)
    assert roles(found) == {"ann": "admin", "cat": "admin", "dan": "admin", "eve": "admin", "mia": "member"}


def test_a_thief_can_say_nothing_that_counts_after_a_recovery() -> None:
    recovered = say("eve", recover(kept("bob")), seen=LAST.values())
    back_dated = next_by("bob", invite("seat of zoe", Role.ADMIN), admit("seat of zoe", "zoe"), kept("cat"))
    by_helper = say("zoe", kept("dan"), grant("mia", Role.ADMIN), seen=[back_dated])
    new_life = say("bob", kept("ann"), seen=LAST.values(), incarnation=2)
    found = members(recovered, back_dated, by_helper, new_life)
    assert found.standings(back_dated.link) == (CUT, CUT, CUT)
    assert found.standings(by_helper.link) == (UPROOTED, UPROOTED)
    assert found.standings(new_life.link) == (CUT,)
    assert not any(found.is_revoked(node(name)) for name in ("ann", "cat", "dan", "eve"))


def test_a_recovery_needs_no_role_and_its_proof() -> None:
    recovered = say("eve", recover(), seen=LAST.values())
    assert members(recovered).role_of(node("eve")) is Role.ADMIN
    statement = recovered.read.statements[0]
    assert isinstance(statement, Recover)
    unproven = next_by("mia", recovered.commit.bodies[0] or b"")
    assert members(unproven).role_of(node("mia")) is Role.MEMBER


# -- forks ---------------------------------------------------------------------------------------------------


def test_a_fork_freezes_an_incarnation_at_the_common_prefix() -> None:
    one, other = said_now("bob", INVITE, ""), next_by("bob", grant("mia", Role.READER))
    after = next_by("bob", grant("mia", Role.ADMIN), after=one)
    found = members(one, after, other)
    assert [found.standings(said.link) for said in (one, after, other)] == [(FORKED,)] * 3
    assert found.standings(LAST["bob"].link) == (STANDS,)
    assert found.role_of(node("bob")) is Role.ADMIN  # the node goes on, in a new incarnation
    again = say("bob", invite("ticket of eve"), seen=LAST.values(), incarnation=2)
    assert members(one, other, again).standings(again.link) == (STANDS,)


def test_a_cut_settles_a_fork_once_the_header_that_it_names_is_here() -> None:
    other = say("bob", grant("mia", Role.READER), seen=[SETUP["a3"]])
    further = next_by("bob", invite("ticket of eve"))
    out = next_by("ann", revoke("bob", further))
    found = members(other, out, further)
    before = found.at([other.link, out.link])
    assert before.standings(LAST["bob"].link) == before.standings(other.link) == (FORKED,)
    assert found.standings(LAST["bob"].link) == found.standings(further.link) == (STANDS,)
    assert found.standings(other.link) == (FORKED,)


def test_a_fork_of_data_is_settled_by_the_cut_of_a_revocation() -> None:
    last = LAST["bob"].read
    cut = Cut(SPACE, last.author[32:], 5, b"5" * 32)
    left = Cuts(tuple(sorted([cut, Cut(SYSTEM, last.author[32:], 1, last.hash)])))
    heads = [said.link for said in LAST.values()]

    def verdict(found: Members, seq: int, *, leads: bool) -> Standing:
        return found.judge(
            SPACE, last.author, seq, HASH, heads, forked_at=3, leads_to=lambda named: leads and named == cut
        ).standing

    assert [verdict(members(), seq, leads=True) for seq in (2, 3, 4)] == [STANDS, FORKED, FORKED]
    found = members(next_by("ann", Revoke(node("bob"), left)))
    assert [verdict(found, seq, leads=True) for seq in (2, 3, 4, 6)] == [STANDS, STANDS, STANDS, CUT]
    assert [verdict(found, seq, leads=False) for seq in (2, 3, 4, 6)] == [STANDS, FORKED, FORKED, CUT]


# -- reading and handling ------------------------------------------------------------------------------------


def test_commits_may_come_in_any_order_if_all_causes_are_there() -> None:
    commits = [said.read for said in SETUP.values()]
    assert roles(Members.of_genesis(GENESIS).with_commits(reversed(commits))) == roles(members())
    with pytest.raises(LocalMisuse):
        Members.of_genesis(GENESIS).with_commits(commits[1:])


def test_heads_are_what_nothing_seen_has_seen() -> None:
    assert members().heads == tuple(sorted(said.link for said in LAST.values()))
    after = next_by("mia", admit("ticket of ann", "joe"))
    found = members(after)
    assert found.heads == (after.link,)
    assert found.at([LAST["bob"].link, SETUP["a1"].link]).heads == (LAST["bob"].link,)
    assert found.at([]).heads == ()


def test_an_unknown_commit_cannot_be_asked_about() -> None:
    unknown = said_now("bob", REVOKE_ALL, "cat")
    found = members()
    assert not found.knows(unknown.link) and found.knows(LAST["bob"].link)
    with pytest.raises(LocalMisuse):
        found.at([unknown.link])
    with pytest.raises(LocalMisuse):
        found.role_at(node("bob"), [unknown.link])


def test_a_commit_is_read_with_all_that_it_has_seen() -> None:
    said = next_by("bob", invite("ticket of eve"))
    header = said.commit.header
    assert said.read.previous == LAST["bob"].link
    assert said.read.deps == tuple(Link(dep.author, dep.seq, dep.hash_prefix) for dep in header.deps)
    assert SETUP["a1"].read.previous is None and SETUP["a1"].read.parents == ()
    assert isinstance(SETUP["a1"].read.statements[0], Genesis)


def test_a_dropped_body_says_nothing() -> None:
    commit = SETUP["a2"].commit
    dropped = Commit(commit.header, commit.header_bytes, commit.hash, (None,) * 4, commit.signature)
    assert isinstance(commit.header, Header)
    assert read_system_commit(dropped, GENESIS).statements == (None,) * 4
