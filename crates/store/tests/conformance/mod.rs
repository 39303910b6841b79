//! What every store must do, whatever engine is below it: each function takes an empty store behind
//! the port and drives it through the port alone.

mod approvals;
mod audit;
pub(crate) mod commands;
pub(crate) mod fixtures;
mod hosts;
mod keys;
mod lists;
pub(crate) mod model;
mod people;
pub(crate) mod selectors;
mod standing;

use std::pin::Pin;

use fleet::ports::Store;

/// One case: its name and itself.
pub(crate) type Case = (&'static str, for<'s> fn(&'s dyn Store) -> Pin<Box<dyn Future<Output = ()> + 's>>);

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Every case.
        pub(crate) const CASES: &[Case] = &[$((stringify!($name), |store| Box::pin($module::$name(store)))),*];
    };
}

cases! {
    people::a_fleet_is_made_once,
    people::root_metadata_follows_in_order,
    people::sessions_live_until_they_end,
    people::a_sign_in_is_refused_when_the_account_moved_meanwhile,
    people::accounts_are_made_changed_and_deleted,
    people::a_fleet_keeps_an_owner_whoever_is_first,
    people::api_tokens_are_kept_used_and_revoked,
    people::what_is_asked_for_is_written_only_while_whoever_asks_is_let_in,
    hosts::a_token_becomes_one_host,
    hosts::bad_tokens_get_one_answer,
    hosts::names_are_unique_among_living_hosts,
    hosts::what_a_session_shows_is_kept,
    hosts::quarantine_stops_orders_and_not_reports,
    hosts::revocation_ends_what_is_open,
    hosts::a_retirement_is_a_report_and_a_revocation_in_one,
    hosts::keys_follow_one_another_and_none_comes_twice,
    commands::a_proposal_is_read_back_whole,
    commands::a_proposal_is_idempotent_by_its_request,
    commands::a_refused_proposal_leaves_nothing,
    commands::a_recovery_copy_comes_with_its_operation_and_may_be_wrapped_anew,
    commands::open_commands_of_a_host_are_bounded,
    commands::sealing_compares_and_sets,
    commands::stages_move_forward_only,
    commands::a_report_settles_and_its_position_is_compared,
    commands::a_report_fills_a_gap,
    commands::a_deploy_has_stages_and_an_instance,
    commands::a_kept_report_moves_the_chain_only,
    commands::only_what_never_arrived_is_ended_without_a_report,
    commands::lists_are_filtered_newest_first,
    commands::many_hosts_in_one_operation,
    approvals::held_commands_are_queued_when_they_have_enough,
    approvals::an_approval_is_stored_only_as_it_was_judged,
    approvals::what_is_held_too_long_is_overdue,
    approvals::an_account_has_one_approver_key_and_a_key_one_account,
    keys::a_change_is_open_once_for_each_role_and_moves_in_order,
    keys::a_stolen_key_ends_the_change_that_was_open,
    keys::orders_under_way_are_those_delivered_in_that_time,
    standing::a_standing_order_follows_its_commands,
    standing::a_revision_is_given_out_once_and_a_refused_one_leaves_nothing,
    audit::records_are_read_back_in_order,
    audit::refused_writes_leave_no_leaf,
    audit::heads_are_kept_ascending,
    lists::accounts_are_listed,
    lists::sessions_are_listed,
    lists::api_tokens_are_listed_by_their_standing,
    lists::hosts_are_listed,
    lists::apps_are_listed,
    lists::commands_are_listed,
    lists::operations_are_listed,
    lists::audit_entries_are_listed,
    lists::what_comes_between_two_pages_hides_and_repeats_nothing,
}
