//! When an attempt is asked to leave and when it is made to: pure rules, no clock and no processes.
//!
//! One direction only: running, then ending (SIGTERM sent), then killing. The first cause is the one that is
//! recorded; a command that exits by itself while it is being ended was still ended.

use crate::runner::record::Reason;

/// How far the end of an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Left alone.
    Running,
    /// Told to leave; the grace period runs.
    Ending(Reason),
    /// Being killed, round after round, until nothing is left.
    Killing(Reason),
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// The command's time is up.
    DeadlinePassed,
    /// SIGTERM to the holder.
    StopRequested,
    /// The command has exited and left other processes behind.
    LeftoversFound,
    /// The grace period is over.
    GraceElapsed,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    None,
    /// Send SIGTERM to the tree and start the full grace period.
    Terminate,
    /// Send SIGTERM to the leftovers and start the short grace period.
    TerminateLeftovers,
    /// Kill the tree.
    Kill,
}

impl Phase {
    /// The next phase, and what to do.
    pub(super) fn step(self, input: Input) -> (Self, Act) {
        match (self, input) {
            (Self::Running, Input::DeadlinePassed) => (Self::Ending(Reason::TimedOut), Act::Terminate),
            (Self::Running, Input::StopRequested) => (Self::Ending(Reason::Stopped), Act::Terminate),
            (Self::Running, Input::LeftoversFound) => (Self::Ending(Reason::Exited), Act::TerminateLeftovers),
            // Told to leave already: to be told again means at once.
            (Self::Ending(reason), Input::StopRequested | Input::GraceElapsed) => {
                (Self::Killing(reason), Act::Kill)
            }
            (phase, _) => (phase, Act::None),
        }
    }

    /// What the record will say.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Running => Reason::Exited,
            Self::Ending(reason) | Self::Killing(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: [Input; 4] =
        [Input::DeadlinePassed, Input::StopRequested, Input::LeftoversFound, Input::GraceElapsed];

    #[test]
    fn each_cause_asks_once_and_then_kills() {
        let cases = [
            (Input::DeadlinePassed, Reason::TimedOut, Act::Terminate),
            (Input::StopRequested, Reason::Stopped, Act::Terminate),
            (Input::LeftoversFound, Reason::Exited, Act::TerminateLeftovers),
        ];
        for (input, reason, act) in cases {
            let (ending, done) = Phase::Running.step(input);
            assert_eq!((ending, done), (Phase::Ending(reason), act));
            assert_eq!(ending.step(Input::GraceElapsed), (Phase::Killing(reason), Act::Kill));
            assert_eq!(ending.step(Input::StopRequested), (Phase::Killing(reason), Act::Kill));
        }
    }

    #[test]
    fn the_first_cause_stays_and_no_phase_goes_back() {
        let rank = |phase: Phase| match phase {
            Phase::Running => 0,
            Phase::Ending(_) => 1,
            Phase::Killing(_) => 2,
        };
        for first in INPUTS {
            for second in INPUTS {
                for third in INPUTS {
                    let one = Phase::Running.step(first).0;
                    let two = one.step(second).0;
                    let three = two.step(third).0;
                    assert!(rank(one) <= rank(two) && rank(two) <= rank(three));
                    if one != Phase::Running {
                        assert_eq!(three.reason(), one.reason(), "{first:?} {second:?} {third:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn killing_is_final_and_a_grace_that_nobody_gave_does_nothing() {
        let killing = Phase::Killing(Reason::TimedOut);
        for input in INPUTS {
            assert_eq!(killing.step(input), (killing, Act::None));
        }
        assert_eq!(Phase::Running.step(Input::GraceElapsed), (Phase::Running, Act::None));
    }
}
