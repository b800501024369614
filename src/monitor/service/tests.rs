//! What the monitor does about a worker that died, is silent, hangs on its way to a stop or does not start: with real
//! processes, one round after the other.

use super::*;
use crate::lock::Holder;
use crate::monitor::testbed::{Bed, PATIENCE, Role, eventually, was_stand_in};

impl Bed {
    fn service(&self) -> Service {
        Service::new(self.scene.clone()).unwrap()
    }

    fn report(&self, service: &Service) -> String {
        std::fs::read_to_string(service.folder.as_ref().unwrap().join("report.md")).unwrap()
    }

    /// Waits for an alert of this kind with this text.
    fn alerted(&self, kind: &str, text: &str) {
        eventually(&format!("alert {kind}: {text}"), || {
            let alerts =
                std::fs::read_to_string(self.scene.workdir.root().join("alerts")).unwrap_or_default();
            alerts.lines().any(|line| line.contains(&format!("\"event\":\"{kind}\"")) && line.contains(text))
        });
    }
}

fn rounds_until(service: &mut Service, what: &str, is_so: impl Fn(&Service) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so(service) {
        assert!(std::time::Instant::now() < deadline, "never so: {what}");
        service.round();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_worker_that_died_is_replaced_told_and_reported() {
    if was_stand_in() {
        return;
    }
    let mut bed = Bed::new();
    bed.scene.config.monitor.interval = Duration::from_secs(30);
    bed.leave_status("ready");
    let mut service = bed.service();
    assert_eq!(service.round(), Duration::from_secs(30));
    let worker = bed.worker().expect("one was started");
    let name = service.memory.incident.clone().unwrap();
    assert_eq!(service.folder, Some(bed.scene.workdir.incidents().join(&name)));
    assert_eq!(
        (service.memory.told.as_slice(), service.memory.owed_start),
        (&[Kind::Stall, Kind::Restart][..], false)
    );
    let [restart] = service.memory.restarts.as_slice() else { panic!("{:?}", service.memory.restarts) };
    assert_eq!(restart.outcome, format!("pid {} is ready and works", worker.pid));
    assert_eq!((&restart.incident, restart.why.is_empty()), (&name, false));
    assert!(bed.report(&service).contains("starting a worker\n"));
    assert!(bed.report(&service).contains(&restart.outcome));
    bed.alerted("stall", &restart.why);
    bed.alerted("restart", &format!("restarting the worker: {}", restart.why));
    assert_eq!(Memory::read(&bed.scene.workdir).unwrap(), service.memory, "nothing of it is forgotten");
    // Another monitor goes on with it.
    let mut service = bed.service();
    assert_eq!(service.folder.as_ref().and_then(|folder| folder.file_name()), Some(name.as_ref()));
    // At work again, it is not over yet: twice the interval has to pass.
    assert_eq!(service.round(), Duration::from_secs(30));
    assert!(matches!(service.said, Some(Verdict::Working)));
    let since = service.works_since.unwrap();
    assert!(since <= monotonic_ms() && since + 30_000 > monotonic_ms());
    assert_eq!(service.memory.incident.as_deref(), Some(name.as_str()));
    service.works_since = Some(monotonic_ms() - 55_000);
    service.round();
    assert!(service.memory.incident.is_some(), "not for long enough");
    service.works_since = Some(monotonic_ms() - 60_001);
    let folder = service.folder.clone().unwrap();
    service.round();
    assert_eq!((service.memory.incident.as_ref(), service.folder.as_ref()), (None, None));
    assert!(service.memory.told.is_empty());
    assert_eq!(Memory::read(&bed.scene.workdir).unwrap(), service.memory);
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(report.contains("the worker works again; the incident is over\n"), "{report}");
    bed.alerted("recovery", "the worker works again");
    assert_eq!(service.memory.restarts.len(), 1, "and that was all");
    assert_eq!(bed.worker(), Some(worker));
}

#[test]
fn a_silent_worker_is_ended_and_replaced_and_one_that_was_to_stop_is_only_ended() {
    let mut bed = Bed::new();
    (bed.scene.config.monitor.stale_after, bed.scene.config.monitor.interval) =
        (Duration::from_millis(300), Duration::from_millis(100));
    let first = bed.stand_in(Role::Worker);
    let mut service = bed.service();
    rounds_until(&mut service, "it is at work", |service| service.works_since.is_some());
    assert_eq!(service.memory, bed.service().memory, "nothing to remember");
    bed.silence(&first.id);
    rounds_until(&mut service, "it is replaced", |service| !service.memory.restarts.is_empty());
    let second = bed.worker().unwrap();
    assert!(second != first.id && !first.id.is_alive().unwrap());
    assert_eq!(service.memory.restarts[0].outcome, format!("pid {} is ready and works", second.pid));
    assert!(bed.report(&service).contains(&format!("ended pid {} with SIG", first.id.pid)));
    assert_eq!((service.works_since, service.said.is_none()), (None, true), "everything is looked at anew");
    rounds_until(&mut service, "the next is at work", |service| service.works_since.is_some());
    bed.alerted("stall", &format!("\"pid\":{}", first.id.pid));
    // Asked to stop, it hangs.
    service.memory.incident = None;
    service.memory.told.clear();
    bed.say_state("draining");
    eventually("it says so", || {
        look::take(&bed.scene).status.is_some_and(|status| status.state.to_string() == "draining")
    });
    bed.silence(&second);
    rounds_until(&mut service, "it is ended", |_| bed.worker().is_none());
    assert!(!second.is_alive().unwrap());
    assert_eq!((service.memory.told.as_slice(), service.memory.owed_start), (&[Kind::Stall][..], false));
    let report = bed.report(&service);
    assert!(report.contains("; it was asked to stop, so no worker is started\n"), "{report}");
    let folder = service.folder.clone().unwrap();
    rounds_until(&mut service, "it is over", |service| service.memory.incident.is_none());
    assert_eq!((service.folder.as_ref(), service.memory.restarts.len()), (None, 1), "nobody was started");
    let report = std::fs::read_to_string(folder.join("report.md")).unwrap();
    assert!(report.contains("the worker was stopped on purpose; the incident is over\n"), "{report}");
}

#[test]
fn a_start_that_fails_is_owed_tried_again_later_and_given_up_aloud() {
    let mut bed = Bed::new();
    bed.scene.config.monitor.interval = Duration::from_secs(30);
    bed.scene.config.monitor.start = Some(vec!["/bin/false".to_owned()]);
    let mut service = bed.service();
    assert_eq!(service.round(), Duration::from_secs(30));
    assert!(matches!(service.said, Some(Verdict::Never)) && service.memory.incident.is_none());
    bed.leave_status("ready");
    service.round();
    assert!(service.memory.owed_start);
    let outcome = service.memory.restarts[0].outcome.clone();
    assert!(outcome.starts_with("failed: ") && outcome.contains("exit status: 1"), "{outcome}");
    // Whatever the worker that is gone said last: a start is owed. It waits for its time.
    bed.leave_status("stopped");
    let wait = service.round();
    assert!(wait >= Duration::from_millis(10) && wait <= Duration::from_secs(1), "{wait:?}");
    assert!(service.memory.incident.is_some() && service.memory.restarts.len() == 1);
    (0..5).for_each(|_| service.memory.backoff.restarted(monotonic_ms()));
    assert_eq!(service.round(), Duration::from_secs(30));
    service.round();
    assert_eq!(service.memory.told, [Kind::Stall, Kind::Restart, Kind::GiveUp]);
    bed.alerted("give_up", "the next try is in 15 min");
    let report = bed.report(&service);
    assert_eq!(report.matches("restarts do not help (").count(), 1, "once is enough: {report}");
    assert_eq!(service.memory.restarts.len(), 1);
    // Without a debt a worker that was stopped stays stopped.
    service.memory.owed_start = false;
    assert_eq!(service.round(), Duration::from_secs(30));
    assert_eq!((service.memory.incident.as_ref(), service.memory.told.len()), (None, 0));
    assert_eq!(bed.scene.holder().unwrap(), Holder::Nobody);
}

#[tokio::test]
async fn an_incident_of_a_handler_is_told_once_also_by_the_next_monitor() {
    let bed = Bed::new();
    let mut service = bed.service();
    service.follow_handlers();
    assert_eq!(service.memory.handlers, handlers::Told::default(), "there is no ledger");
    let part = crate::status::Progress::default().part("ledger", PATIENCE);
    let (ledger, _actor) = crate::ledger::Ledger::open(&bed.scene.workdir.ledger(), part).unwrap();
    service.follow_handlers();
    let failure = crate::ledger::Failure {
        handler: "h".to_owned(),
        signature: "s".to_owned(),
        error: "job a: no quota".to_owned(),
        failures: 5,
    };
    ledger.fail_handler(failure, None).await.unwrap();
    service.follow_handlers();
    let told = service.memory.handlers.clone();
    assert_eq!(told.open.len(), 1);
    bed.alerted("incident", "no quota");
    assert_eq!(Memory::read(&bed.scene.workdir).unwrap().handlers, told);
    let mut next = bed.service();
    next.follow_handlers();
    ledger.mend_handler("h".to_owned()).await.unwrap();
    next.follow_handlers();
    bed.alerted("incident_over", "works again");
    let alerts = std::fs::read_to_string(bed.scene.workdir.root().join("alerts")).unwrap();
    // Two monitors at once deliver what is on its way twice; it is the same event.
    let told: std::collections::BTreeSet<&str> = alerts.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(told.len(), 2, "{alerts}");
}

#[test]
fn a_worker_that_works_is_remembered_as_calm_and_only_one_monitor_watches() {
    let bed = Bed::new();
    let _worker = bed.stand_in(Role::Worker);
    let mut service = bed.service();
    service.memory.backoff.restarted(monotonic_ms());
    service.memory.owed_start = true;
    service.round();
    assert!(!service.memory.owed_start);
    assert_eq!(
        Memory::read(&bed.scene.workdir).unwrap().backoff,
        service.memory.backoff,
        "its calm has begun"
    );
    drop(service);
    let _monitor = bed.stand_in(Role::Monitor);
    let err = Watch::begin(bed.scene.clone()).err().unwrap();
    assert!(matches!(err, ServiceError::Lock(LockError::Held { .. })), "{err}");
    let limits = limits(&bed.scene);
    let monitor = &bed.scene.config.monitor;
    assert_eq!(
        (limits.stale_after, limits.stuck_after, limits.interval),
        (monitor.stale_after, monitor.stuck_after, monitor.interval)
    );
}
