//! A test for each rule of Algorithm 1: that it fires, and that it does not without each of its conditions.
//!
//! Four validators of equal power, so three are a quorum and two hold more than a third; the proposer of round r is r. We
//! are 3 unless said otherwise.

use lockstep_consensus::planted::{Bug, Planted};

use crate::desk::Desk;

const PREVOTE_A: &str = "persist prevote A@0; cast prevote A@0";
const PREVOTE_NIL: &str = "persist prevote nil@0; cast prevote nil@0";
const PRECOMMIT_NIL: &str = "persist precommit nil@0; cast precommit nil@0";
const LOCK_A: &str = "persist precommit A@0; cast precommit A@0; locked A@0";

/// Locked on A in round 0, now in round 1.
fn locked_on_a(me: usize) -> Desk {
    let desk = Desk::validator(me).given(&["proposal A", "body A", "prevotes A from=0,1,2", "timeout precommit"]);
    assert_eq!(desk.core.locked().map(|locked| locked.round.get()), Some(0));
    assert_eq!(desk.core.round().get(), 1);
    desk
}

#[test]
fn l11_a_round_waits_for_the_pace_and_for_its_proposal() {
    let (mut desk, said) = Desk::unready(&[1; 4], Some(3), false);
    assert_eq!(said, "round 0");
    desk.expect("ready", "timer propose@0");
    desk.expect("ready", "nothing");
}

#[test]
fn l11_the_proposer_builds_a_new_value_and_proposes_it() {
    let (mut desk, said) = Desk::new(&[1; 4], Some(0), Planted::default());
    assert_eq!(said, "build @0; timer propose@0");
    // What we built is valid, so our own prevote follows at once.
    desk.expect("built A", &format!("persist proposal A@0; propose A@0; {PREVOTE_A}"));
    desk.expect("built B", "nothing");
}

#[test]
fn l11_nobody_else_builds() {
    for me in [Some(1), Some(2), Some(3), None] {
        let (mut desk, said) = Desk::new(&[1; 4], me, Planted::default());
        assert_eq!(said, "timer propose@0");
        desk.expect("built A", "nothing");
    }
}

#[test]
fn l11_a_block_that_comes_too_late_is_not_proposed() {
    let mut desk = Desk::validator(0);
    desk.expect("timeout propose", PREVOTE_NIL);
    desk.expect("built A", "nothing");
    let mut desk = Desk::validator(0).given(&["precommits nil r=1 from=1,2"]);
    desk.expect("built A r=0", "nothing");
    desk.expect("built A r=1", "nothing");
}

#[test]
fn l11_the_proposer_proposes_its_valid_value_again() {
    let mut desk = Desk::validator(1).given(&["proposal A", "body A", "prevotes A from=0,2,3"]);
    desk.expect(
        "timeout precommit",
        "round 1; persist proposal A@1 vr=0; propose A@1 vr=0; timer propose@1; persist prevote A@1 vr=0; cast prevote A@1 vr=0",
    );
}

#[test]
fn l11_the_pace_does_not_hold_back_later_rounds() {
    let (mut desk, _) = Desk::unready(&[1; 4], Some(1), false);
    desk.expect("prevotes nil r=1 from=2,3", &gives_up(0, "round 1; build @1; timer propose@1"));
    desk.expect("ready", "nothing");
}

#[test]
fn l11_a_proposer_that_missed_its_last_slot_gets_less_time_until_it_is_heard() {
    let propose = |desk: &mut Desk, line: &str| {
        let effects = desk.effects(line);
        effects.into_iter().find_map(|effect| match effect {
            lockstep_consensus::Effect::Schedule(_, duration) => Some(duration.as_millis()),
            _ => None,
        })
    };
    let (mut desk, _) = Desk::unready(&[1; 4], Some(3), true);
    assert_eq!(propose(&mut desk, "ready"), Some(100));
    assert_eq!(propose(&mut desk, "prevotes nil from=1"), None, "another validator's vote says nothing of the proposer");
    assert_eq!(propose(&mut desk, "prevotes nil from=0"), Some(500));
    assert_eq!(propose(&mut desk, "precommits nil from=0"), None);
    let (mut desk, _) = Desk::unready(&[1; 4], Some(3), true);
    desk.tell("prevotes nil from=0");
    assert_eq!(propose(&mut desk, "ready"), Some(500));
    let (mut desk, _) = Desk::unready(&[1; 4], Some(3), false);
    assert_eq!(propose(&mut desk, "ready"), Some(500));
}

#[test]
fn l22_a_timely_valid_new_value_is_prevoted() {
    let mut desk = Desk::validator(3);
    desk.expect("proposal A", "check A");
    desk.expect("valid A", PREVOTE_A);
}

#[test]
fn l22_waits_for_the_proposal() {
    let mut desk = Desk::validator(3);
    desk.expect("valid A", "nothing");
    desk.expect("proposal A", PREVOTE_A);
}

#[test]
fn l22_does_not_wait_for_the_pace() {
    let (desk, _) = Desk::unready(&[1; 4], Some(3), false);
    desk.given(&["proposal A"]).expect("valid A", PREVOTE_A);
}

#[test]
fn l22_an_invalid_value_is_answered_with_nil() {
    Desk::validator(3).given(&["proposal A"]).expect("invalid A", PREVOTE_NIL);
}

#[test]
fn l22_an_untimely_value_is_answered_with_nil_whatever_it_is() {
    for when in ["early", "late"] {
        Desk::validator(3).expect(&format!("proposal A {when}"), &format!("check A; {PREVOTE_NIL}"));
    }
}

#[test]
fn l22_a_lock_on_another_value_is_answered_with_nil() {
    let mut desk = locked_on_a(3);
    desk.expect("proposal B r=1", "check B; persist prevote nil@1; cast prevote nil@1");
}

#[test]
fn l22_a_lock_on_the_same_value_is_no_obstacle() {
    locked_on_a(3).expect("proposal A r=1", "persist prevote A@1; cast prevote A@1");
}

#[test]
fn l22_runs_in_the_propose_step_only() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("proposal A", "check A");
    desk.expect("valid A", "nothing");
}

#[test]
fn l22_runs_in_the_round_of_the_proposal_only() {
    let mut desk = Desk::validator(3).given(&["proposal A r=1"]);
    desk.expect("valid A", "nothing");
    desk.expect("prevotes nil r=1 from=0", &gives_up(0, "round 1; timer propose@1; persist prevote A@1; cast prevote A@1"));
    // One of a round behind us answers nothing.
    desk.expect("proposal B r=0", "nothing");
}

#[test]
fn l22_only_the_first_proposal_of_a_round_is_answered() {
    let mut desk = Desk::validator(3).given(&["proposal A", "valid B"]);
    desk.expect("proposal B", "nothing");
    desk.expect("valid A", PREVOTE_A);
}

/// In round 1 with a polka for A of round 0, whose body is valid.
fn polka_behind(me: usize) -> Desk {
    Desk::validator(me).given(&["valid A", "prevotes A from=0,1,2", "precommits nil r=1 from=0,2"])
}

#[test]
fn l28_a_value_with_a_polka_is_prevoted() {
    polka_behind(3).expect("proposal A r=1 vr=0", "persist prevote A@1 vr=0; cast prevote A@1 vr=0");
}

#[test]
fn l28_waits_for_the_proposal() {
    let desk = polka_behind(3);
    assert_eq!(desk.core.current_step(), lockstep_consensus::Step::Propose);
}

#[test]
fn l28_waits_for_the_polka_and_the_propose_timer_goes_on() {
    let desk = Desk::validator(3).given(&["valid A", "precommits nil r=1 from=0,2"]);
    let mut lacking = desk.clone();
    lacking.expect("proposal A r=1 vr=0", "nothing");
    lacking.expect("prevotes A from=0,1", "nothing");
    lacking.expect("prevotes B from=2", "nothing");
    lacking.clone().expect("prevotes A from=2", "accuse 2; persist prevote A@1 vr=0; cast prevote A@1 vr=0");
    lacking.clone().expect("polka A from=0,1,2", "accuse 2; persist prevote A@1 vr=0; cast prevote A@1 vr=0");
    lacking.clone().expect("timeout propose r=1", "persist prevote nil@1; cast prevote nil@1");
    lacking.expect("precommits A from=0,1,2", "decide A@0");
    // Another block's polka, or one of another round, is not it.
    desk.clone().given(&["proposal A r=1 vr=0"]).expect("polka B from=0,1,2", "check B; want B");
    let two = desk.given(&["precommits nil r=2 from=0,1"]);
    two.given(&["proposal A r=2 vr=1"]).expect("polka A r=0 from=0,1,2", "nothing");
}

#[test]
fn l28_waits_for_the_body() {
    let mut desk = Desk::validator(3).given(&["prevotes A from=0,1,2", "precommits nil r=1 from=0,2"]);
    desk.expect("proposal A r=1 vr=0", "nothing");
    desk.clone().expect("valid A", "persist prevote A@1 vr=0; cast prevote A@1 vr=0");
    desk.expect("invalid A", "persist prevote nil@1; cast prevote nil@1");
}

#[test]
fn l28_timeliness_has_no_say() {
    polka_behind(3).expect("proposal A r=1 vr=0 late", "persist prevote A@1 vr=0; cast prevote A@1 vr=0");
}

#[test]
fn l28_a_newer_lock_on_another_value_stands() {
    // Locked on B in round 1. The polka for A is of round 0.
    let mut desk = polka_behind(3).given(&["proposal B r=1", "body B", "polka B r=1 from=0,1,2", "timeout precommit r=1"]);
    assert_eq!(desk.core.locked().map(|locked| locked.round.get()), Some(1));
    desk.clone().expect("proposal A r=2 vr=0", "persist prevote nil@2; cast prevote nil@2");
    // On the value itself any valid round will do, as long as it has its polka.
    desk.expect("polka B r=0 vr=-1 from=0,1,2", "accuse 0; accuse 1; accuse 2");
    desk.expect("proposal B r=2 vr=1", "persist prevote B@2 vr=1; cast prevote B@2 vr=1");
}

#[test]
fn l28_an_older_lock_on_another_value_yields() {
    let mut desk = locked_on_a(3).given(&["polka B r=1 from=0,1,2", "valid B", "timeout propose r=1", "precommits nil r=2 from=0,1"]);
    desk.expect("proposal B r=2 vr=1", "persist prevote B@2 vr=1; cast prevote B@2 vr=1");
}

#[test]
fn l28_a_lock_of_the_same_round_as_the_polka_yields() {
    // vr = lockedRound: the polka we locked on and the one proposed cannot both be without a third of the power lying; the
    // paper's condition is lockedRound <= vr, and a lock on the value itself passes in any case.
    locked_on_a(3).expect("proposal A r=1 vr=0", "persist prevote A@1 vr=0; cast prevote A@1 vr=0");
}

#[test]
fn l28_the_polka_may_carry_any_one_valid_round() {
    let desk = Desk::validator(3).given(&["valid A", "precommits nil r=2 from=0,1"]);
    let tagged = desk.clone().given(&["polka A r=1 vr=0 from=0,1,2"]);
    tagged.clone().expect("proposal A r=2 vr=1", "persist prevote A@2 vr=1; cast prevote A@2 vr=1");
    let mixed = desk.given(&["prevotes A r=1 vr=0 from=0,1", "prevotes A r=1 from=2"]);
    mixed.clone().expect("proposal A r=2 vr=1", "nothing");
}

#[test]
fn l34_two_thirds_of_any_prevotes_start_the_timer_once() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("prevotes A from=0", "nothing");
    desk.expect("prevotes B from=1", "timer prevote@0");
    desk.expect("prevotes C from=2", "nothing");
}

#[test]
fn l34_waits_for_the_prevote_step() {
    let mut desk = Desk::validator(3);
    desk.expect("prevotes nil from=0", "nothing");
    desk.expect("prevotes A from=1,2", "nothing");
    desk.expect("timeout propose", &format!("{PREVOTE_NIL}; timer prevote@0"));
}

#[test]
fn l34_one_validator_counts_once_and_another_round_does_not() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("prevotes A from=0", "nothing");
    desk.expect("prevotes B from=0", "accuse 0");
    desk.expect("prevotes A r=1 from=1", "nothing");
    desk.expect("precommits A from=1,2", "nothing");
}

#[test]
fn l36_a_polka_locks_and_is_precommitted() {
    Desk::validator(3).given(&["proposal A", "body A"]).expect("prevotes A from=0,1", LOCK_A);
}

#[test]
fn l36_is_tried_again_on_each_of_its_conditions() {
    let conditions = ["proposal A", "valid A", "durable A", "polka A from=0,1,2", "timeout propose"];
    for order in orders(&conditions) {
        let mut desk = Desk::validator(3);
        let said: Vec<String> = order.iter().map(|line| desk.tell(line)).collect();
        let locks = said.iter().filter(|said| said.contains("cast precommit A@0; locked A@0")).count();
        assert_eq!(locks, 1, "in the order {order:?}: {said:?}");
    }
}

/// What the test above would say of a core that looks at a polka once.
#[test]
fn l36_a_forgotten_polka_would_be_seen() {
    let (desk, _) = Desk::new(&[1; 4], Some(3), Planted::default().with(Bug::EarlyPolkaForgotten));
    let desk = desk.given(&["proposal A", "valid A", "prevotes A from=0,1", "durable A"]);
    assert_eq!(desk.core.locked(), None);
}

#[test]
fn l36_timeliness_has_no_say() {
    let untimely = |planted| Desk::new(&[1; 4], Some(3), planted).0.given(&["proposal A late", "body A", "prevotes A from=0,1,2"]);
    assert!(untimely(Planted::default()).core.locked().is_some());
    assert!(untimely(Planted::default().with(Bug::TimelinessInValid)).core.locked().is_none(), "or we would not see that it has");
}

#[test]
fn l36_waits_for_each_of_its_conditions() {
    // All but the proposal, for which the polka stands in.
    for missing in ["valid A", "durable A", "polka A from=0,1,2", "timeout propose"] {
        let mut desk = Desk::validator(3);
        // No proposal, so that nothing but its timer ends the propose step.
        for line in ["valid A", "durable A", "polka A from=0,1,2", "timeout propose"].into_iter().filter(|line| *line != missing) {
            let said = desk.tell(line);
            assert!(!said.contains("precommit"), "without {missing}, after {line}: {said}");
        }
        assert_eq!(desk.core.locked(), None);
        assert_eq!(desk.core.valid(), None);
        assert!(desk.tell(missing).contains(LOCK_A), "the last condition: {missing}");
    }
}

#[test]
fn l36_an_invalid_body_is_never_locked() {
    let mut desk = Desk::validator(3).given(&["proposal A", "invalid A", "durable A"]);
    desk.expect("polka A from=0,1,2", "timer prevote@0");
}

#[test]
fn l36_past_the_prevote_step_the_value_is_remembered_only() {
    let mut desk = Desk::validator(3).given(&["proposal A", "body A", "prevotes nil from=0,1", "timeout prevote"]);
    desk.expect("polka A from=0,1,2", "accuse 0; accuse 1; remembered A@0");
    assert_eq!(desk.core.locked(), None);
}

#[test]
fn l36_counts_prevotes_of_one_valid_round() {
    let mut desk = Desk::validator(3).given(&["body A", "precommits nil r=2 from=0,1", "timeout propose r=2"]);
    desk.expect("prevotes A r=2 vr=0 from=0", "nothing");
    desk.expect("prevotes A r=2 vr=1 from=1,2", "timer prevote@2");
    // Three prevoted A, in two names. A certificate of one is judged by itself.
    desk.expect("polka A r=2 vr=1 from=0,1,2", "accuse 0; persist precommit A@2; cast precommit A@2; timer precommit@2; locked A@2");
}

#[test]
fn l36_is_about_our_round() {
    let mut desk = Desk::validator(3).given(&["body A", "prevotes nil r=1 from=0,1", "timeout propose r=1"]);
    desk.expect("polka A r=0 from=0,1,2", "nothing");
    assert_eq!((desk.core.locked(), desk.core.valid()), (None, None));
}

#[test]
fn l44_a_nil_polka_is_answered_with_nil() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("prevotes nil from=0", "nothing");
    desk.expect("prevotes nil from=1", "persist precommit nil@0; cast precommit nil@0");
}

#[test]
fn l44_waits_for_the_prevote_step() {
    let mut desk = Desk::validator(3);
    desk.expect("prevotes nil from=0,1,2", "nothing");
    desk.expect("timeout propose", &format!("{PREVOTE_NIL}; persist precommit nil@0; cast precommit nil@0"));
    let mut desk = Desk::validator(3).given(&["timeout propose", "prevotes A from=0,1", "timeout prevote"]);
    desk.expect("prevotes nil from=0,1", "accuse 0; accuse 1");
}

#[test]
fn l44_needs_a_quorum_of_nil() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("prevotes A from=0", "nothing");
    desk.expect("prevotes nil from=1", "timer prevote@0");
    desk.expect("prevotes nil r=1 from=2", "nothing");
}

#[test]
fn l47_two_thirds_of_any_precommits_start_the_timer_once_in_any_step() {
    for before in [&[][..], &["timeout propose"], &["proposal A", "body A", "prevotes A from=0,1"]] {
        let mut desk = Desk::validator(3).given(before);
        let own = usize::from(desk.core.current_step() == lockstep_consensus::Step::Precommit);
        let voters =
            if own == 1 { ["precommits nil from=0", "precommits B from=1"] } else { ["precommits nil from=0,1", "precommits B from=2"] };
        desk.expect(voters[0], "nothing");
        desk.expect(voters[1], "timer precommit@0");
        desk.expect("precommits C from=2", if own == 1 { "nothing" } else { "accuse 2" });
    }
}

#[test]
fn a_round_that_two_thirds_precommitted_nil_is_left_at_once() {
    let said_nil = || Desk::validator(3).given(&["timeout propose", "prevotes nil from=0,1"]);
    let mut desk = said_nil();
    desk.expect("precommits nil from=0", "nothing");
    desk.expect("precommits nil from=1", "round 1; timer propose@1");
    // A block among them may still be decided: the timer gives it time, as in the paper.
    let mut mixed = said_nil();
    mixed.expect("precommits A from=0", "nothing");
    mixed.expect("precommits nil from=1", "timer precommit@0");
    // Our own precommit comes first.
    Desk::validator(3).expect("precommits nil from=0,1,2", "timer precommit@0");
}

#[test]
fn l47_waits_for_our_round() {
    let mut desk = Desk::validator(3);
    desk.expect("precommits nil r=1 from=0", "nothing");
    // The third vote of the round arrives together with the round itself.
    desk.expect("precommits A r=1 from=1", &gives_up(0, "round 1; timer propose@1"));
    desk.expect("precommits nil r=0 from=0,1,2", "nothing");
    desk.expect("precommits B r=1 from=2", "timer precommit@1");
}

#[test]
fn l49_a_certificate_of_a_valid_block_decides() {
    let mut desk = Desk::validator(3).given(&["proposal A", "body A"]);
    desk.expect("precommits A from=0,1", "nothing");
    desk.expect("precommits A from=2", "decide A@0");
    // Nothing is said in a decided height.
    desk.expect("prevotes A from=0,1,2", "nothing");
    desk.expect("timeout precommit", "nothing");
    desk.expect("prevotes nil r=1 from=0,1", "nothing");
}

#[test]
fn l49_waits_for_valid() {
    let mut desk = Desk::validator(3);
    desk.expect("precommits A from=0,1,2", "check A; want A; timer precommit@0");
    desk.clone().expect("valid A", "decide A@0");
    desk.expect("durable A", "nothing");
    desk.expect("invalid A", "contradiction A@0");
    desk.expect("invalid A", "nothing");
    // Judged again as what more than two thirds decided.
    desk.expect("valid A", "decide A@0");
}

#[test]
fn l49_needs_neither_the_proposal_nor_the_round() {
    // Of a round ahead, whose proposal we never saw.
    let desk = Desk::validator(3).given(&["valid A"]);
    desk.clone().expect("commit A r=7 from=0,1,2", "decide A@7");
    desk.clone().expect("precommits A r=2 from=0,1,2", &gives_up(1, "round 2; timer propose@2; decide A@2"));
    // Of a round behind.
    let mut later = desk.given(&["prevotes nil r=5 from=0,1"]);
    later.expect("precommits A r=1 from=0,1,2", "decide A@1");
}

#[test]
fn l49_needs_more_than_two_thirds_for_one_block_in_one_round() {
    let mut desk = Desk::validator(3).given(&["valid A", "valid B"]);
    desk.expect("precommits A from=0,1", "nothing");
    desk.expect("precommits nil from=2", "timer precommit@0");
    desk.expect("precommits A from=0,1", "nothing");
    desk.expect("precommits A r=1 from=2", "nothing");
    desk.expect("precommits B from=2", "accuse 2");
}

#[test]
fn l55_more_than_a_third_ahead_takes_us_there() {
    let mut desk = Desk::validator(3);
    desk.expect("prevotes A r=4 from=0", "nothing");
    desk.expect("prevotes nil r=4 from=1", &gives_up(3, "round 4; timer propose@4"));
}

#[test]
fn l55_counts_a_validator_once_whatever_it_says() {
    let mut desk = Desk::validator(3);
    desk.expect("proposal A r=1", "check A");
    desk.expect("prevotes A r=1 from=1", "nothing");
    desk.expect("precommits A r=1 from=1", "nothing");
    desk.expect("precommits nil r=1 from=1", "accuse 1");
    desk.expect("precommits nil r=1 from=2", &gives_up(0, "round 1; timer propose@1"));
}

#[test]
fn l55_counts_all_kinds_of_messages_together() {
    let mut desk = Desk::validator(3);
    desk.expect("proposal A r=1", "check A");
    desk.expect("precommits A r=1 from=2", &gives_up(0, "round 1; timer propose@1"));
}

#[test]
fn l55_takes_the_highest_round_that_a_correct_validator_has_reached() {
    let mut desk = Desk::validator(2);
    desk.expect("prevotes nil r=2000000000 from=0", "nothing");
    desk.expect("prevotes nil r=3 from=1", &gives_up(2, "round 3; timer propose@3"));
    desk.expect("prevotes nil r=5 from=3", &gives_up(4, "round 5; timer propose@5"));
}

#[test]
fn l55_looks_ahead_only() {
    let mut desk = Desk::validator(3).given(&["prevotes nil r=3 from=0,1"]);
    desk.expect("prevotes nil r=2 from=0,1,2", "nothing");
    desk.expect("prevotes nil r=3 from=2", "nothing");
}

#[test]
fn l57_the_propose_timer_is_answered_with_nil() {
    let mut desk = Desk::validator(3);
    desk.expect("timeout propose", PREVOTE_NIL);
    desk.expect("timeout propose", "nothing");
}

#[test]
fn l57_ignores_a_timer_of_another_round_or_step() {
    let mut desk = Desk::validator(3);
    desk.expect("timeout propose r=1", "nothing");
    desk.tell("prevotes nil r=1 from=0,1");
    desk.expect("timeout propose r=0", "nothing");
    Desk::validator(3).given(&["proposal A", "valid A"]).expect("timeout propose", "nothing");
}

#[test]
fn l61_the_prevote_timer_is_answered_with_nil() {
    let mut desk = Desk::validator(3).given(&["timeout propose"]);
    desk.expect("timeout prevote", "persist precommit nil@0; cast precommit nil@0");
    desk.expect("timeout prevote", "nothing");
}

#[test]
fn l61_ignores_a_timer_of_another_round_or_step() {
    let mut desk = Desk::validator(3);
    desk.expect("timeout prevote", "nothing");
    desk.tell("timeout propose");
    desk.expect("timeout prevote r=1", "nothing");
    Desk::validator(3).given(&["proposal A", "body A", "prevotes A from=0,1"]).expect("timeout prevote", "nothing");
}

#[test]
fn l65_the_precommit_timer_starts_the_next_round_in_any_step() {
    let next = "round 1; timer propose@1";
    Desk::validator(3).given(&["timeout propose", "timeout prevote"]).expect("timeout precommit", next);
    // What was not voted is voted nil: nobody leaves a round in silence.
    Desk::validator(3).given(&["timeout propose"]).expect("timeout precommit", &format!("{PRECOMMIT_NIL}; {next}"));
    Desk::validator(3).expect("timeout precommit", &gives_up(0, next));
    // Nor by a skip, and then the round before the one it enters is the one that it gives up.
    Desk::validator(3).given(&["timeout propose"]).expect("prevotes nil r=1 from=0,1", &format!("{PRECOMMIT_NIL}; {next}"));
}

/// A round that is left before any vote in it.
fn gives_up(round: u32, then: &str) -> String {
    let nil = |kind: &str| format!("persist {kind} nil@{round}; cast {kind} nil@{round}");
    format!("{}; {}; {then}", nil("prevote"), nil("precommit"))
}

#[test]
fn l65_ignores_a_timer_of_another_round() {
    let mut desk = Desk::validator(3);
    desk.expect("timeout precommit r=1", "nothing");
    desk.tell("timeout precommit r=0");
    desk.expect("timeout precommit r=0", "nothing");
}

#[test]
fn who_is_no_validator_follows_and_says_nothing() {
    let (mut desk, _) = Desk::new(&[1; 4], None, Planted::default());
    desk.expect("proposal A", "check A");
    desk.expect("body A", "nothing");
    desk.expect("prevotes A from=0,1,2", "locked A@0");
    desk.expect("precommits A from=0,1,2", "decide A@0");
    let (mut desk, _) = Desk::new(&[1; 4], None, Planted::default());
    desk.expect("timeout propose", "nothing");
    desk.expect("timeout prevote", "nothing");
    desk.expect("timeout precommit", "round 1; timer propose@1");
}

/// Every order of some lines.
fn orders<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    if lines.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (place, first) in lines.iter().enumerate() {
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, line)| *line).collect();
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first);
            order
        }));
    }
    assert!(!all.is_empty());
    all
}
