//! Follows the incidents of handlers in the ledger, so that each is told once, whoever restarts.
//!
//! Pure but for [`look`], which reads the ledger. What was told is in the monitor's memory before it is sent.

use serde::{Deserialize, Serialize};

use super::alerts::Kind;
use super::scene::Scene;
use crate::ledger::{IncidentRow, LedgerError};

/// Incidents told in one round; the others follow in the next.
const AT_ONCE: u32 = 20;

/// What was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// The last incident that was told; `None` before the first look.
    pub last: Option<i64>,
    /// Those that were open when they were told and are not known to be over: number and handler.
    pub open: Vec<(i64, String)>,
}

/// The incidents of one moment.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    /// Those that are open.
    pub open: Vec<IncidentRow>,
    /// The first ones after the last that was told.
    pub new: Vec<IncidentRow>,
    /// Number of the last one there is.
    pub last: i64,
}

/// Reads them.
///
/// # Errors
/// The ledger's.
pub fn look(scene: &Scene, told: &Told) -> Result<Incidents, LedgerError> {
    let ledger = scene.ledger()?;
    let last = ledger.last_incident()?;
    let new = match told.last {
        Some(before) if before <= last => ledger.incidents_after(before, AT_ONCE)?,
        _ => Vec::new(),
    };
    Ok(Incidents { open: ledger.open_incidents()?, new, last })
}

/// What is to be told, and what will have been told then.
#[must_use]
pub fn follow(told: &Told, seen: &Incidents) -> (Told, Vec<(Kind, String)>) {
    let mut next = told.clone();
    let mut news = Vec::new();
    // A first look, or another ledger: what is over by then is nobody's business any more.
    let is_fresh = told.last.is_none_or(|last| last > seen.last);
    if is_fresh {
        next = Told { last: Some(seen.last), open: Vec::new() };
    }
    for incident in if is_fresh { &seen.open } else { &seen.new } {
        news.push((Kind::Incident, sentence(incident)));
        next.last = next.last.max(Some(incident.id));
        if !incident.is_single() {
            next.open.push((incident.id, incident.handler.clone()));
        }
    }
    next.open.retain(|(id, handler)| {
        let is_open = seen.open.iter().any(|incident| incident.id == *id);
        if !is_open {
            news.push((Kind::IncidentOver, format!("handler `{handler}` works again")));
        }
        is_open
    });
    (next, news)
}

/// An incident in words.
#[must_use]
pub fn sentence(incident: &IncidentRow) -> String {
    let error = incident.error.lines().next().unwrap_or_default();
    if incident.is_single() {
        return format!("a job of handler `{}` failed: {error}", incident.handler);
    }
    format!("handler `{}` keeps failing ({} like failures): {error}", incident.handler, incident.failures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;

    fn incident(id: i64, closed_at: Option<i64>) -> IncidentRow {
        IncidentRow {
            id,
            handler: format!("h{id}"),
            error: "job a: no quota\nmore".to_owned(),
            failures: 5,
            opened_at: Millis(10),
            closed_at: closed_at.map(Millis),
        }
    }

    fn kinds(news: &[(Kind, String)]) -> Vec<Kind> {
        news.iter().map(|(kind, _)| *kind).collect()
    }

    #[test]
    fn each_incident_is_told_once_and_so_is_its_end() {
        let none = Incidents { last: 3, ..Incidents::default() };
        let (told, news) = follow(&Told::default(), &none);
        assert_eq!((told.last, news.len()), (Some(3), 0), "what is over before the first look is not told");
        let opened = Incidents { open: vec![incident(4, None)], new: vec![incident(4, None)], last: 4 };
        let (told, news) = follow(&told, &opened);
        assert_eq!(kinds(&news), [Kind::Incident]);
        assert_eq!(news[0].1, "handler `h4` keeps failing (5 like failures): job a: no quota");
        let still = Incidents { new: Vec::new(), ..opened };
        let (again, news) = follow(&told, &still);
        assert_eq!((&again, news.len()), (&told, 0));
        let (told, news) = follow(&told, &Incidents { last: 4, ..Incidents::default() });
        assert_eq!((kinds(&news), told.open.len()), (vec![Kind::IncidentOver], 0));
    }

    #[test]
    fn what_opened_and_closed_between_two_looks_is_told_and_single_failures_have_no_end() {
        let told = Told { last: Some(1), open: Vec::new() };
        let short =
            Incidents { new: vec![incident(2, Some(20)), incident(3, Some(10))], last: 3, open: Vec::new() };
        let (told, news) = follow(&told, &short);
        assert_eq!(kinds(&news), [Kind::Incident, Kind::Incident, Kind::IncidentOver]);
        assert!(news[1].1.starts_with("a job of handler `h3` failed"), "{news:?}");
        assert_eq!(told, Told { last: Some(3), open: Vec::new() });
    }

    #[test]
    fn another_ledger_begins_anew() {
        let told = Told { last: Some(50), open: vec![(50, "h".to_owned())] };
        let seen = Incidents { open: vec![incident(1, None)], new: Vec::new(), last: 1 };
        let (told, news) = follow(&told, &seen);
        assert_eq!((told.last, kinds(&news)), (Some(1), vec![Kind::Incident]));
    }

    #[tokio::test]
    async fn only_what_is_new_since_it_was_told_is_read_and_of_another_ledger_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let workdir = crate::workdir::Workdir::open(dir.path()).unwrap();
        workdir.prepare().unwrap();
        let part = crate::status::Progress::default().part("ledger", std::time::Duration::from_secs(9));
        let (ledger, actor) = crate::ledger::Ledger::open(&workdir.ledger(), part).unwrap();
        for handler in ["a", "b", "c"] {
            let (handler, signature) = (handler.to_owned(), "s".to_owned());
            let failure = crate::ledger::Failure { handler, signature, error: "e".to_owned(), failures: 1 };
            ledger.fail_handler(failure, None).await.unwrap();
        }
        ledger.mend_handler("b".to_owned()).await.unwrap();
        drop(ledger);
        actor.join().unwrap();
        let scene = Scene::open(workdir, crate::monitor::scene::LimitFlags::default()).unwrap();
        let seen = |last: Option<i64>| {
            let found = look(&scene, &Told { last, open: Vec::new() }).unwrap();
            let ids = |rows: &[IncidentRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
            assert_eq!((ids(&found.open), found.last), (vec![1, 3], 3));
            ids(&found.new)
        };
        assert_eq!((seen(None), seen(Some(0)), seen(Some(2))), (vec![], vec![1, 2, 3], vec![3]));
        assert_eq!((seen(Some(3)), seen(Some(4))), (vec![], vec![]));
    }

    #[test]
    fn an_end_is_told_of_those_that_were_told_and_a_ledger_that_did_not_change_is_the_same() {
        let told = Told { last: Some(2), open: vec![(1, "h1".to_owned()), (2, "h2".to_owned())] };
        let seen = Incidents { open: vec![incident(2, None)], new: Vec::new(), last: 2 };
        let (next, news) = follow(&told, &seen);
        assert_eq!(next, Told { last: Some(2), open: vec![(2, "h2".to_owned())] });
        assert_eq!(news, [(Kind::IncidentOver, "handler `h1` works again".to_owned())]);
    }
}
