//! How much a slot asks for, by how brief its jobs were, and for how long a promise is good.

use super::*;

fn holder() -> HolderId {
    HolderId { pid: 1, start_ticks: 1, boot_id: "b".to_owned() }
}

fn dealt(jobs: impl IntoIterator<Item = i64>) -> Dealt {
    Dealt { jobs: jobs.into_iter().map(Claimed::example).collect(), as_of: 5 }
}

/// After so many attempts of this length.
fn after(count: u32, took: Duration) -> Ahead {
    let mut ahead = Ahead::default();
    (0..count).for_each(|_| ahead.note(took));
    ahead
}

fn seqs(claims: Vec<Claimed>) -> Vec<i64> {
    claims.into_iter().map(|one| one.seq).collect()
}

/// Takes the next promise, however slow the machine is.
fn next(ahead: &mut Ahead) -> i64 {
    ahead.promised.iter_mut().for_each(|promise| promise.until = Instant::now() + Duration::from_secs(60));
    ahead.take(5).unwrap().seq
}

const BRIEF_ONE: Duration = Duration::from_millis(1);

#[test]
fn only_a_row_of_brief_attempts_lets_a_busy_slot_ask_and_for_no_more_than_fits() {
    let ms = Duration::from_millis;
    for (count, took, busy, idle) in [
        (0, BRIEF_ONE, None, Some(1)),
        (7, BRIEF_ONE, None, Some(1)),
        (8, BRIEF_ONE, Some(8), Some(8)),
        (9, ms(3), Some(8), Some(8)),
        (8, ms(5), Some(5), Some(5)),
        (8, ms(10), Some(2), Some(2)),
        (8, ms(11), None, Some(1)),
        (8, Duration::ZERO, Some(8), Some(8)),
    ] {
        for (is_busy, wanted) in [(true, busy), (false, idle)] {
            let most = after(count, took).offer(3, holder(), is_busy).map(|offer| (offer.index, offer.most));
            assert_eq!(most, wanted.map(|most| (3, most)), "{count} of {took:?}, busy: {is_busy}");
        }
    }
    let mut ahead = after(20, BRIEF_ONE);
    ahead.note(ms(11));
    assert!(ahead.offer(0, holder(), true).is_none(), "a long one ends the row");
    (0..8).for_each(|_| ahead.note(BRIEF_ONE));
    assert!(ahead.offer(0, holder(), true).is_some(), "and another begins");
    assert!(ahead.offer(0, holder(), true).is_none(), "one stands already");
    assert!(ahead.close().is_empty());
    assert!(ahead.offer(0, holder(), true).is_none(), "what went wrong ends the row as well");
}

#[tokio::test]
async fn a_slot_asks_again_when_half_is_left_of_what_it_was_promised() {
    let mut ahead = after(8, BRIEF_ONE);
    let offer = ahead.offer(0, holder(), false).unwrap();
    assert!(!offer.work.is_closed());
    offer.work.send(dealt(1..=6)).unwrap();
    assert_eq!(ahead.answer().await.map(|one| one.seq), Some(1));
    assert!(ahead.offer(0, holder(), true).is_none(), "five of eight are there");
    assert_eq!(next(&mut ahead), 2);
    let offer = ahead.offer(0, holder(), true).unwrap();
    assert_eq!(offer.most, 4, "the other half");
    offer.work.send(dealt([9])).unwrap();
    let rest: Vec<i64> = (0..5).map(|_| next(&mut ahead)).collect();
    assert_eq!(rest, [3, 4, 5, 6, 9], "in order, and the answer is taken when it has come");
    assert!(ahead.take(5).unwrap_err().is_empty());
    assert!(ahead.answer().await.is_none(), "nothing was asked");
    drop(ahead.offer(0, holder(), false).unwrap());
    assert!(ahead.answer().await.is_none(), "the scheduler has dropped it");
    assert!(ahead.offer(0, holder(), false).is_some(), "so it may ask again");
}

#[tokio::test]
async fn a_promise_is_good_for_a_moment_and_until_there_is_news() {
    let late = Instant::now();
    for (is_late, news, is_good) in [(false, 5, true), (true, 5, false), (false, 6, false)] {
        let mut ahead = after(8, BRIEF_ONE);
        let before = Instant::now();
        ahead.offer(0, holder(), false).unwrap().work.send(dealt(1..=4)).unwrap();
        assert_eq!(ahead.answer().await.unwrap().seq, 1);
        for promise in &mut ahead.promised {
            assert!(promise.until >= before + GOOD_FOR && promise.until <= Instant::now() + GOOD_FOR);
            // Far away, so that it does not depend on how busy the machine is.
            promise.until = if is_late { late } else { before + Duration::from_secs(60) };
        }
        match ahead.take(news) {
            Ok(next) => assert_eq!((next.seq, is_good), (2, true)),
            Err(stale) => assert_eq!((seqs(stale), is_good), (vec![2, 3, 4], false)),
        }
        assert_eq!(seqs(ahead.close()), if is_good { vec![3, 4] } else { vec![] });
    }
}

#[test]
fn what_was_promised_is_handed_out_at_the_end_with_an_answer_that_was_on_its_way() {
    let mut ahead = after(8, BRIEF_ONE);
    ahead.keep(dealt([1]));
    let offer = ahead.offer(0, holder(), true).unwrap();
    offer.work.send(dealt([2, 3])).unwrap();
    assert_eq!(seqs(ahead.close()), [1, 2, 3]);
    let offer = ahead.offer(0, holder(), false).unwrap();
    assert!(ahead.close().is_empty());
    assert!(offer.work.send(dealt([4])).is_err(), "it goes back to the scheduler");
}
