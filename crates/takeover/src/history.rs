//! Whether some order of the calls explains what applications were told (linearizability, Herlihy and Wing 1990).

use crate::file::{Answer, File};
use crate::scope::{APPS, Op};

/// What an application is at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Call {
    Nothing,
    /// It waits, and its call has no place in the order yet.
    Waits(Op),
    /// It waits, and has to be told this.
    Placed(Answer),
}

/// One order of the calls so far comes to this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Outcome {
    file: File,
    calls: [Call; APPS],
}

/// The outcomes of all orders that explain what was told. Keeping them instead of the calls lets histories meet that
/// nobody can tell apart any more.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct History(Vec<Outcome>);

impl History {
    pub(crate) fn new() -> History {
        History(vec![Outcome { file: File::default(), calls: [Call::Nothing; APPS] }])
    }

    /// An application calls.
    pub(crate) fn call(&mut self, app: usize, op: Op) {
        self.0.iter_mut().for_each(|outcome| outcome.calls[app] = Call::Waits(op));
        let mut next = 0;
        while let Some(outcome) = self.0.get(next).copied() {
            next += 1;
            for app in 0..APPS {
                if let Call::Waits(op) = outcome.calls[app] {
                    let mut placed = outcome;
                    placed.calls[app] = Call::Placed(placed.file.run(op));
                    self.0.push(placed);
                }
            }
        }
        self.put_in_order();
    }

    /// An application is told something.
    pub(crate) fn tell(&mut self, app: usize, answer: Answer) {
        self.0.retain(|outcome| outcome.calls[app] == Call::Placed(answer));
        self.0.iter_mut().for_each(|outcome| outcome.calls[app] = Call::Nothing);
        self.put_in_order();
    }

    pub(crate) fn is_explained(&self) -> bool {
        !self.0.is_empty()
    }

    fn put_in_order(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::History;
    use crate::file::{Answer, File};
    use crate::scope::Op;

    fn seen(value: u8) -> Answer {
        File { value, ..File::default() }.seen()
    }

    #[test]
    fn a_value_that_comes_back_is_not_explained() {
        let mut history = History::new();
        history.call(0, Op::Write(1));
        for (value, is_explained) in [(1, true), (2, true), (1, false)] {
            if value == 2 {
                history.call(1, Op::Write(2));
                history.tell(1, Answer::Done);
            }
            history.call(1, Op::Read);
            history.tell(1, seen(value));
            assert_eq!(history.is_explained(), is_explained, "{value}");
        }
    }

    #[test]
    fn calls_at_once_have_any_order_and_others_their_own() {
        for told in [[Answer::Done, Answer::Failed], [Answer::Failed, Answer::Done]] {
            let mut history = History::new();
            history.call(0, Op::Create);
            history.call(1, Op::Create);
            history.tell(0, told[0]);
            history.tell(1, told[1]);
            assert!(history.is_explained());
            history.call(0, Op::Create);
            history.tell(0, Answer::Done);
            assert!(!history.is_explained(), "the name is there");
        }
    }
}
