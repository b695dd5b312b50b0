"""Each attack that was seen to work once has a test of its name, and its near miss has one.

The table is read by whoever asks "is this closed?". A row names the kind of attack, the test that
refuses it, and the test of the lawful act beside it, which must go on working.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
# Attack: the test that refuses it, and the test of the lawful act that is nearest to it.
ATTACKS: dict[str, tuple[str, str]] = {
    "a key's id that a document claims": (
        "test_a_key_id_that_a_document_claims_is_refused",
        "test_an_approver_reads_the_new_key_itself",
    ),
    "one public key under two ids": (
        "test_one_key_in_another_wrapping_is_no_second_person",
        "test_full_quorum_is_granted",
    ),
    "a stolen key that comes back": (
        "test_a_stolen_key_does_not_come_back_in_another_wrapping",
        "test_a_vote_that_no_longer_counts_keeps_nobody_from_voting",
    ),
    "somebody else's public key, enrolled as one's own or as a second person's": (
        "test_a_key_that_its_holder_did_not_sign_for_is_not_enrolled",
        "test_the_holder_of_a_new_key_has_it_enrolled",
    ),
    "an offer of a key, carried to another person or enclave": (
        "test_what_a_new_key_signed_for_elsewhere_enrols_it_nowhere",
        "test_the_holder_of_a_new_key_has_it_enrolled",
    ),
    "a founding with a key that signed nothing": (
        "test_every_key_of_a_founding_signs_it",
        "test_founding_needs_every_founder",
    ),
    "a passkey under another one's credential id": (
        "test_a_passkey_under_another_ones_credential_id_is_refused",
        "test_the_holder_of_a_new_key_has_it_enrolled",
    ),
    "a name in borrowed letters": (
        "test_a_name_in_borrowed_letters_is_refused",
        "test_names_as_people_write_them_are_taken",
    ),
    "a text so long that it goes on where our labels stand": (
        "test_no_long_text_goes_on_where_our_labels_stand",
        "test_every_line_after_the_label_is_indented",
    ),
    "a policy text that draws lines of the founding": (
        "test_no_policy_text_draws_a_line_of_the_founding",
        "test_a_founder_reads_every_key_before_signing",
    ),
    "a passkey under a second spelling of its numbers": (
        "test_a_passkey_whose_numbers_are_spelt_otherwise_is_no_key",
        "test_a_passkey_in_another_order_of_cbor_is_no_second_person",
    ),
    "an enrolment inside another site's page": (
        "test_a_registration_is_taken_or_refused_for_its_reason",
        "test_an_altered_registration_gives_nobody_elses_key",
    ),
    "a counter that a requester sets": (
        "test_a_counter_or_model_that_a_requester_sets_is_refused",
        "test_cloned_passkey_is_refused",
    ),
    "two keys of one person": (
        "test_two_keys_of_one_person_count_once",
        "test_full_quorum_is_granted",
    ),
    "a founding that shows no keys": (
        "test_a_founder_reads_every_key_before_signing",
        "test_an_approver_reads_the_new_key_itself",
    ),
    "a human and the service whose key they hold": (
        "test_a_service_and_the_human_who_holds_its_key_are_not_two",
        "test_agents_and_services_never_approve",
    ),
    "an approval carried to another enclave": (
        "test_a_request_of_another_enclave_is_refused",
        "test_the_desk_reaches_the_same_state",
    ),
    "an exemption that outlives who carried it": (
        "test_exemption_ends_with_its_approvers_enrolment",
        "test_exemption_is_a_grant",
    ),
    "glass broken for windows far ahead": (
        "test_break_glass_is_short_and_rare",
        "test_break_glass_pages_before_it_grants",
    ),
    "text that draws on an approver's screen": (
        "test_no_text_of_a_requester_draws_on_an_approvers_screen",
        "test_what_stands_on_the_screen_is_what_is_signed",
    ),
    "a hidden character or a newline in any field": (
        "test_no_field_of_any_request_takes_a_hidden_character",
        "test_every_member_of_a_request_is_in_its_words",
    ),
    "a name that is drawn like another": (
        "test_a_name_that_is_drawn_like_another_is_refused",
        "test_refused_enrolment_names_the_reason",
    ),
    "one leaf from a fast clock": (
        "test_a_fast_clock_does_not_freeze_revocation",
        "test_a_step_back_within_the_skew_stops_nobody",
    ),
    "a fast clock that ends a running lease": (
        "test_a_fast_clock_elsewhere_ends_no_running_lease",
        "test_expiry_ends_a_running_loader",
    ),
    "a leaf that breaks its reader": (
        "test_a_poisoned_proof_is_void_and_stops_no_reader",
        "test_an_entry_that_is_no_leaf_is_void_and_stops_no_desk",
    ),
    "any changed leaf of any type": (
        "test_no_changed_leaf_stops_a_reader",
        "test_the_desk_reaches_the_same_state",
    ),
    "another program behind the connection": (
        "test_a_child_that_shares_the_connection_gets_no_key",
        "test_the_measured_process_gets_its_keys",
    ),
    "exec between question and answer": (
        "test_a_loader_that_becomes_another_program_is_refused",
        "test_one_process_has_one_image",
    ),
    "byte code outside the digest": (
        "test_a_byte_code_cache_is_refused",
        "test_the_measured_process_gets_its_keys",
    ),
    "code that a group may write": (
        "test_code_that_a_group_or_others_may_write_is_refused",
        "test_the_measured_process_gets_its_keys",
    ),
    "a use that is spent before the command is judged": (
        "test_a_command_without_a_shard_spends_no_use",
        "test_quorum_loads_the_model",
    ),
    "two who decide who may approve": (
        "test_a_policy_under_which_two_decide_who_may_approve_is_refused",
        "test_the_stock_policy_loads_and_can_be_met",
    ),
    "a reviewer who approves": (
        "test_the_reviewer_never_approves",
        "test_the_higher_tier_takes_two_approvers_whatever_the_rule_says",
    ),
    "a stake in the answer": (
        "test_a_person_with_a_stake_neither_reviews_nor_approves",
        "test_the_reviewer_never_approves",
    ),
    "a use case that changes within its session": (
        "test_a_session_has_one_use_case",
        "test_a_session_keeps_its_use_case",
    ),
}


def names() -> set[str]:
    """Return the names of every test."""
    return {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


NAMES = names()


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_and_its_near_miss_has_a_test(attack: str) -> None:
    """Both tests of the row are there."""
    assert set(ATTACKS[attack]) <= NAMES


def test_no_pattern_of_a_signed_document_ends_with_a_dollar() -> None:
    """`$` lets one newline in: no field of trust is declared with it."""
    folder = TESTS.parent / "src" / "safehold" / "trust"
    found = [
        f"{path.name}:{node.lineno}"
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.keyword)
        and node.arg == "pattern"
        and "$" in ast.unparse(node.value)[-3:]
    ]
    assert found == []
