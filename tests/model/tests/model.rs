//! Runs the scenarios.
//!
//! The bounds here keep each to seconds. More, for a night:
//! `LOOM_MAX_PREEMPTIONS=5 cargo test --release --package virtio-fs-model`.
//! `LOOM_LOG=trace LOOM_LOCATION=1` shows the order of a failure.

use virtio_fs_model::scenarios;

/// Plays a scenario in every order with up to so many preemptions, or as many as
/// the environment says.
fn check(preemptions: usize, scenario: fn()) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(preemptions));
    model.max_branches = 20_000;
    model.check(scenario);
}

macro_rules! scenarios {
    ($($(#[$ignore:meta])? $name:ident: $preemptions:literal),* $(,)?) => {
        $(
            #[test]
            $(#[$ignore])?
            fn $name() {
                check($preemptions, scenarios::$name);
            }
        )*
    };
}

scenarios! {
    handoff_does_what_was_asked: 2,
    handoff_serves_two_who_ask: 2,
    words_change_together: 2,
    a_waiter_is_woken: 2,
    a_sleep_lock_changes_hands: 2,
    sharing_and_being_alone_exclude_each_other: 2,
    a_reply_wakes_its_caller: 2,
    a_reply_meets_a_new_waiter: 2,
    a_request_ends_once: 2,
    the_line_serves_both: 2,
    a_returned_slot_serves_the_line: 2,
    a_request_goes_round_the_ring: 2,
    two_requests_go_round_the_ring: 2,
    #[ignore = "takes minutes"]
    a_sleep_lock_goes_round: 2,
    #[ignore = "takes minutes"]
    two_who_share_let_one_be_alone: 2,
    #[ignore = "takes minutes"]
    the_line_serves_all: 2,
}
