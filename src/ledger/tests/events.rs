//! Control events: each takes effect once, in order, whoever applies it, and none keeps back what comes after it.

use super::*;
use crate::job::HoldKind;

fn lane(name: &str) -> Target {
    Target { kind: HoldKind::Lane, name: name.to_owned() }
}

fn cancel(id: &str) -> Order {
    Order::Cancel(id.to_owned())
}

fn retry(id: &str) -> Order {
    Order::Retry(id.to_owned())
}

impl Bed {
    /// What every event did, in order; nothing may be open.
    fn results(&self) -> Vec<String> {
        let events = self.reader().events(0).unwrap();
        let applied: Vec<_> = events.iter().map(|event| event.applied_at.unwrap()).collect();
        assert!(applied.is_sorted(), "{applied:?}");
        events.into_iter().map(|event| event.effect.unwrap().result).collect()
    }

    /// A connection that is not ours.
    fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir.path().join("ledger.db")).unwrap()
    }
}

/// Nothing that was asked so long ago is overdue.
const NEVER: Millis = Millis(0);

#[test]
fn an_order_survives_its_way_through_the_ledger() {
    let orders = [
        cancel("a\"\\"),
        retry("b"),
        Order::Pause(lane("heavy")),
        Order::Resume(Target { kind: HoldKind::All, name: String::new() }),
        Order::Drain,
        Order::SetSlots(7),
        Order::Reload,
    ];
    for order in orders {
        let parsed = Order::parse(order.verb().as_str(), &order.argument().to_string());
        assert_eq!(parsed.as_ref(), Ok(&order));
    }
    for (verb, argument) in
        [("fly", "{}"), ("cancel", "{}"), ("pause", "{\"kind\":\"moon\",\"name\":\"\"}"), ("reload", "{")]
    {
        assert!(Order::parse(verb, argument).is_err(), "{verb} {argument}");
    }
}

#[tokio::test]
async fn worker_and_command_apply_the_same_events_once_and_in_order() {
    let bed = Bed::new();
    bed.add(entry("a", 1)).await;
    let orders = [cancel("a"), retry("a"), cancel("a"), retry("a"), cancel("nobody")];
    let mut control = bed.control();
    control.ask(&orders).unwrap();
    let worker = bed.ledger.clone();
    let by_worker = tokio::spawn(async move { worker.apply_events().await.unwrap() });
    let by_command = tokio::task::spawn_blocking(move || control.apply_events(None, NEVER).unwrap());
    assert_eq!(by_worker.await.unwrap(), None);
    assert!(by_command.await.unwrap());
    // Another order, or one of them twice, would say "was cancelled already" or "not retried".
    assert_eq!(bed.results(), ["cancelled", "queued again", "cancelled", "queued again", "no such job"]);
    assert_eq!(bed.reader().job("a").unwrap().unwrap().state, State::Queued);
}

#[tokio::test]
async fn what_fails_is_marked_and_keeps_nothing_back() {
    let bed = Bed::new();
    bed.add(entry("a", 1)).await;
    let raw = bed.raw();
    let insert = "INSERT INTO control (verb, argument, asked_at) VALUES (?1, ?2, 0)";
    raw.execute(insert, ["fly", "{}"]).unwrap();
    raw.execute(insert, ["cancel", "no JSON"]).unwrap();
    raw.execute_batch(
        "CREATE TRIGGER refuse BEFORE INSERT ON hold BEGIN SELECT RAISE(ABORT, 'no holds today'); END",
    )
    .unwrap();
    bed.ledger.ask(vec![Order::Pause(lane("x")), cancel("a")]).await.unwrap();
    assert_eq!(bed.ledger.apply_events().await.unwrap(), None);
    let results = bed.results();
    assert!(results[0].contains("`fly`"), "{results:?}");
    assert!(results[1].contains("not JSON"), "{results:?}");
    assert!(results[2].contains("no holds today"), "{results:?}");
    assert_eq!(results[3], "cancelled");
    let oks: Vec<_> = bed.reader().events(0).unwrap().into_iter().map(|e| e.effect.unwrap().ok).collect();
    assert_eq!(oks, [false, false, false, true]);
}

#[tokio::test]
async fn a_worker_obeys_what_is_meant_for_it_and_marks_it_afterwards() {
    let bed = Bed::new();
    let numbers = bed.control().ask(&[Order::SetSlots(3), Order::Pause(lane("x"))]).unwrap();
    let event = bed.ledger.apply_events().await.unwrap().unwrap();
    assert_eq!(event, Event { seq: numbers[0], order: Order::SetSlots(3) });
    assert_eq!(bed.reader().effect(numbers[0]).unwrap(), None, "it has not taken effect yet");
    assert_eq!(bed.reader().effect(numbers[1]).unwrap(), None, "its turn has not come");
    assert!(bed.ledger.conclude(event.seq, Effect::done("3 slots")).await.unwrap());
    assert!(!bed.ledger.conclude(event.seq, Effect::done("again")).await.unwrap());
    assert_eq!(bed.ledger.apply_events().await.unwrap(), None);
    assert_eq!(bed.results(), ["3 slots", "paused"]);
}

#[tokio::test]
async fn a_later_worker_does_not_obey_what_was_meant_for_an_earlier_one() {
    let bed = Bed::new();
    bed.control().ask(&[Order::Drain, Order::Reload, Order::Pause(lane("x"))]).unwrap();
    let next = open(&bed.dir);
    assert_eq!(next.apply_events().await.unwrap(), None);
    assert!(matches!(bed.ledger.apply_events().await, Err(LedgerError::Fenced { .. })));
    let results = bed.results();
    assert!(results[..2].iter().all(|result| result.contains("is gone")), "{results:?}");
    assert_eq!(results[2], "paused");
}

#[tokio::test]
async fn a_command_leaves_a_living_workers_events_to_it_and_takes_back_what_is_overdue() {
    let bed = Bed::new();
    let mut control = bed.control();
    let epoch = control.epoch().unwrap();
    control.ask(&[Order::Pause(lane("a")), Order::Reload, Order::Pause(lane("b"))]).unwrap();
    assert!(!control.apply_events(None, NEVER).unwrap(), "the worker may still do it");
    assert!(!control.apply_events(Some(epoch - 1), NEVER).unwrap(), "that was another worker");
    assert_eq!(bed.reader().holds().unwrap().len(), 1, "what stands behind it waits");
    assert!(control.apply_events(None, Millis::now().plus_ms(1)).unwrap());
    control.ask(&[Order::Drain]).unwrap();
    assert!(control.apply_events(Some(epoch), NEVER).unwrap());
    let results = bed.results();
    assert!(results[1].contains("did not confirm"), "{results:?}");
    assert!(results[3].contains("is gone"), "{results:?}");
    assert_eq!(bed.reader().holds().unwrap().len(), 2);
}

#[tokio::test]
async fn what_has_taken_effect_cannot_be_taken_back() {
    let bed = Bed::new();
    let mut control = bed.control();
    let numbers = control.ask(&[Order::Drain, Order::Reload]).unwrap();
    bed.ledger.conclude(numbers[0], Effect::done("the worker drains")).await.unwrap();
    assert_eq!(control.withdraw(numbers[0]).unwrap(), Some(Effect::done("the worker drains")));
    assert_eq!(control.withdraw(numbers[1]).unwrap(), None);
    assert_eq!(bed.ledger.apply_events().await.unwrap(), None, "the worker does not see it any more");
}

#[tokio::test]
async fn nothing_starts_once_a_pause_is_recorded() {
    let bed = Bed::new();
    let seq = bed.add(entry("a", 1)).await.seq;
    let mut control = bed.control();
    let targets = [
        (HoldKind::All, ""),
        (HoldKind::Lane, "default"),
        (HoldKind::Source, "ideas"),
        (HoldKind::Handler, "materialize"),
    ];
    for (kind, name) in targets {
        let target = Target { kind, name: name.to_owned() };
        control.ask(&[Order::Pause(target.clone())]).unwrap();
        control.apply_events(None, NEVER).unwrap();
        assert!(bed.claim(seq).await.is_none(), "{kind} is paused");
        control.ask(&[Order::Resume(target)]).unwrap();
        control.apply_events(None, NEVER).unwrap();
    }
    control.ask(&[Order::Pause(lane("other"))]).unwrap();
    control.apply_events(None, NEVER).unwrap();
    assert!(bed.claim(seq).await.is_some(), "another lane is no matter of this job");
}
