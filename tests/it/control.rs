//! Control events with a real worker: pause and resume, slots, reload, drain, and a worker that dies in the middle.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use stallproof::job::HoldKind;
use stallproof::ledger::{Control, EventRow, Order, Reader, Target};

use crate::support::bed::{Bed, Worker};
use crate::support::wait::wait_for;

/// A configuration whose handlers `gated` and `other` run while `gate` exists, with lines in `side.log`.
fn config(bed: &Bed, slots: usize, more: &str) -> String {
    let dir = bed.path().display();
    let handler = |name: &str| {
        format!(
            r#"
            [handlers.{name}]
            kind = "command"
            command = ["sh", "-c", '''
                echo "start $STALLPROOF_JOB_ID" >> {dir}/side.log
                while [ -e {dir}/gate ]; do sleep 0.02; done
                echo "end $STALLPROOF_JOB_ID" >> {dir}/side.log''']
            "#
        )
    };
    let (gated, other) = (handler("gated"), handler("other"));
    format!(
        "[worker]\nslots = {slots}\nhandler = \"gated\"\nshutdown_grace = \"200ms\"\nkill_grace = \"300ms\"\n\
         {gated}{other}{more}"
    )
}

fn bed_with(slots: usize, more: &str) -> Bed {
    let bed = Bed::new();
    bed.put("stallproof.toml", config(&bed, slots, more));
    bed.put("gate", "");
    bed
}

fn add(bed: &Bed, entries: &Value) {
    bed.put("new.json", entries.to_string());
    bed.ok(&["add", bed.join("new.json").to_str().unwrap()]);
}

fn jobs(names: &str) -> Value {
    names.split(' ').map(|id| json!({"id": id, "title": id})).collect()
}

fn open_gate(bed: &Bed) {
    fs::remove_file(bed.join("gate")).unwrap();
}

/// Ids with a line of this kind, in order.
fn lines(bed: &Bed, kind: &str) -> Vec<String> {
    let log = bed.read("side.log");
    log.lines().filter_map(|line| line.strip_prefix(kind)).map(str::to_owned).collect()
}

fn started(bed: &Bed) -> Vec<String> {
    lines(bed, "start ")
}

fn wait_started(bed: &Bed, count: usize) {
    wait_for(&format!("{count} starts"), || (started(bed).len() >= count).then_some(()));
}

fn wait_completed(bed: &Bed, ids: &str) {
    for id in ids.split(' ') {
        wait_for(id, || (bed.state(id).as_deref() == Some("completed")).then_some(()));
    }
}

/// Waits until the scheduler has had every chance to start what it wrongly could.
fn scheduler_turns(bed: &Bed) {
    let turns = || bed.status()["progress"]["scheduler"]["counter"].as_u64().unwrap_or_default();
    let before = turns();
    wait_for("turns of the scheduler", || (turns() >= before + 4).then_some(()));
}

fn working(bed: &Bed) -> usize {
    let status = bed.status();
    let slots = status["workers"].as_object().unwrap();
    slots.values().filter(|slot| slot["status"] == "working").count()
}

fn slots(bed: &Bed) -> usize {
    bed.status()["workers"].as_object().map_or(0, serde_json::Map::len)
}

fn reader(bed: &Bed) -> Reader {
    Reader::open(&bed.join(".stallproof/ledger.db")).unwrap()
}

fn control(bed: &Bed) -> Control {
    Control::open(&bed.join(".stallproof/ledger.db")).unwrap()
}

/// Every event; each must have been applied, in order.
fn applied(bed: &Bed) -> Vec<EventRow> {
    let events = reader(bed).events(0).unwrap();
    let times: Vec<_> = events.iter().map(|event| event.applied_at.expect("an event is open")).collect();
    assert!(times.is_sorted(), "{times:?}");
    events
}

#[test]
fn a_pause_of_each_kind_keeps_back_what_it_names_and_nothing_else() {
    let bed = bed_with(4, "");
    open_gate(&bed);
    let worker = bed.start(&[]);
    for (option, name) in [("--lane", "heavy"), ("--source", "ideas"), ("--handler", "other")] {
        let told = bed.json(&["pause", option, name, "--json"]);
        assert_eq!((&told[0]["ok"], &told[0]["result"]), (&json!(true), &json!("paused")), "{told}");
        assert_eq!(told[0]["argument"], json!({"kind": &option[2..], "name": name}));
    }
    assert_eq!(bed.ok(&["pause", "--lane", "heavy"]), "lane heavy  was paused already\n");
    bed.put("ideas_log.json", r#"[{"id": "by-source", "title": "S"}]"#);
    bed.put("QAissue.json", r#"[{"id": "free-qa", "title": "Q"}]"#);
    add(&bed, &json!([{"id": "by-lane", "title": "L", "lane": "heavy"}, {"id": "free", "title": "F"}]));
    bed.put(
        "stallproof.toml",
        config(&bed, 4, "[[rules]]\nmatch = { title = \"H\" }\nhandler = \"other\"\n"),
    );
    add(&bed, &json!([{"id": "by-handler", "title": "H"}]));
    wait_completed(&bed, "free free-qa");
    wait_for("every job", || (bed.jobs().len() == 5).then_some(()));
    scheduler_turns(&bed);
    let mut ran = started(&bed);
    ran.sort();
    assert_eq!(ran, ["free", "free-qa"]);

    let status = bed.json(&["status", "--json"]);
    let held: Vec<_> = status["holds"].as_array().unwrap().iter().map(|hold| hold["name"].clone()).collect();
    assert_eq!(held, ["heavy", "ideas", "other"]);
    let shown = bed.ok(&["status"]);
    assert!(shown.contains("held   lane heavy: paused for"), "{shown}");
    assert!(shown.contains("`stallproof resume --lane heavy` ends it"), "{shown}");
    wait_for("holds in the status file", || {
        (bed.status()["holds"].as_array()?.iter().filter(|hold| hold["reason"] == "paused").count() == 3)
            .then_some(())
    });

    for (option, name, id) in [
        ("--lane", "heavy", "by-lane"),
        ("--source", "ideas", "by-source"),
        ("--handler", "other", "by-handler"),
    ] {
        assert!(bed.ok(&["resume", option, name]).ends_with("resumed\n"));
        wait_completed(&bed, id);
    }
    assert!(bed.ok(&["resume"]).contains("was not paused"));
    drop(worker);
}

#[test]
fn a_pause_of_everything_leaves_what_runs_alone_and_needs_no_worker() {
    let bed = bed_with(2, "");
    add(&bed, &jobs("a"));
    let worker = bed.start(&[]);
    wait_started(&bed, 1);
    bed.ok(&["pause"]);
    add(&bed, &jobs("b c"));
    scheduler_turns(&bed);
    assert_eq!(started(&bed), ["a"]);
    assert_eq!(working(&bed), 1, "what runs goes on");
    open_gate(&bed);
    wait_completed(&bed, "a");
    scheduler_turns(&bed);
    assert_eq!(started(&bed), ["a"]);
    worker.sigkill();

    let worker = bed.start(&[]);
    scheduler_turns(&bed);
    assert_eq!(started(&bed), ["a"], "the pause outlives the worker");
    worker.sigkill();
    assert_eq!(bed.ok(&["resume"]), "everything  resumed\n", "no worker: the command does it");
    bed.work_until_idle(&[]);
    wait_completed(&bed, "b c");
}

#[test]
fn fewer_slots_end_nothing_and_more_start_at_once() {
    let bed = bed_with(8, "");
    let names =
        |prefix: &str, count| (0..count).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>().join(" ");
    add(&bed, &jobs(&names("a", 8)));
    let worker = bed.start(&[]);
    wait_started(&bed, 8);
    let attempts = bed.processes();
    let told = bed.json(&["slots", "2", "--json"]);
    assert_eq!((&told["ok"], &told["result"]), (&json!(true), &json!("2 slots")), "{told}");
    add(&bed, &jobs(&names("b", 8)));
    scheduler_turns(&bed);
    let now = bed.processes();
    assert!(attempts.iter().filter(|pid| now.contains(pid)).count() >= 8, "none of them was ended");
    assert_eq!((started(&bed).len(), working(&bed)), (8, 8), "and nothing new began");
    assert_eq!(bed.status()["slots"], 2);

    open_gate(&bed);
    wait_for("the first eight", || (lines(&bed, "end ").len() >= 8).then_some(()));
    wait_completed(&bed, &names("b", 8));
    wait_for("two slots", || (slots(&bed) == 2).then_some(()));
    assert!((0..8).all(|n| bed.job(&format!("a{n}"))["attempts"].as_array().unwrap().len() == 1));

    bed.put("gate", "");
    add(&bed, &jobs(&names("c", 10)));
    wait_started(&bed, 18);
    scheduler_turns(&bed);
    assert_eq!(started(&bed).len(), 18, "two at once");
    bed.ok(&["slots", "8"]);
    wait_started(&bed, 24);
    scheduler_turns(&bed);
    assert_eq!((started(&bed).len(), slots(&bed)), (24, 8), "six more at once");
    open_gate(&bed);
    wait_completed(&bed, &names("c", 10));
    drop(worker);
}

#[test]
fn a_surplus_slot_that_is_wanted_again_goes_on() {
    let bed = bed_with(3, "");
    add(&bed, &jobs("a b c"));
    let worker = bed.start(&[]);
    wait_started(&bed, 3);
    bed.ok(&["slots", "1"]);
    bed.ok(&["slots", "3"]);
    add(&bed, &jobs("d e f"));
    open_gate(&bed);
    wait_completed(&bed, "a b c d e f");
    wait_for("three idle slots", || (slots(&bed) == 3 && working(&bed) == 0).then_some(()));
    bed.put("gate", "");
    add(&bed, &jobs("g h i"));
    wait_started(&bed, 9);
    drop(worker);
}

#[test]
fn a_reload_brings_lanes_and_rules_and_leaves_attempts_alone() {
    let bed = bed_with(4, "");
    add(&bed, &jobs("a"));
    let worker = bed.start(&[]);
    wait_started(&bed, 1);
    let before = bed.processes();
    let more = "[lanes.heavy]\nslots = 1\n[[rules]]\nmatch = { title = [\"x\", \"y\"] }\nlane = \"heavy\"\n";
    bed.put("stallproof.toml", config(&bed, 4, more));
    let told = bed.json(&["reload", "--json"]);
    assert_eq!(
        (&told["ok"], &told["result"]),
        (&json!(true), &json!("the configuration is in force")),
        "{told}"
    );
    bed.put("ideas_log.json", jobs("x y z").to_string());
    wait_started(&bed, 3);
    scheduler_turns(&bed);
    let mut ran = started(&bed);
    ran.sort();
    assert_eq!(ran, ["a", "x", "z"], "the lane has one slot");
    assert_eq!(bed.job("y")["lane"], "heavy");
    let now = bed.processes();
    assert!(before.iter().filter(|pid| now.contains(pid)).count() >= 1, "the attempt goes on");
    open_gate(&bed);
    wait_completed(&bed, "a x y z");
    assert_eq!(bed.job("a")["attempts"].as_array().unwrap().len(), 1);
    drop(worker);
}

#[test]
fn a_configuration_with_a_mistake_is_refused_and_the_old_one_stays() {
    let bed = bed_with(1, "");
    open_gate(&bed);
    let worker = bed.start(&[]);
    bed.put("stallproof.toml", "[worker]\nslots = 3\nslotz = 4\n");
    let output = bed.run(&["reload", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"], json!(false));
    assert!(told["result"].as_str().unwrap().contains("slotz"), "{told}");
    let reason = || bed.status()["progress"]["control"]["degraded"].as_str().map(str::to_owned);
    let reason = wait_for("a word in the status", reason);
    assert!(reason.contains("slotz") && reason.contains("the one before is in force"), "{reason}");
    bed.put("stallproof.toml", config(&bed, 1, ""));
    add(&bed, &jobs("a"));
    wait_completed(&bed, "a");
    assert_eq!(slots(&bed), 1);
    bed.ok(&["reload"]);
    wait_for("the status without it", || {
        bed.status()["progress"]["control"]["degraded"].is_null().then_some(())
    });
    drop(worker);
}

#[test]
fn a_hangup_reloads_and_a_person_s_slots_last_until_the_file_says_otherwise() {
    let bed = bed_with(1, "");
    let worker = bed.start(&[]);
    let reloads = || reader(&bed).events(0).unwrap().into_iter().filter(|e| e.verb == "reload");
    let result = |number| reloads().nth(number).and_then(|event| event.effect);
    bed.ok(&["slots", "2"]);
    bed.put("stallproof.toml", config(&bed, 1, "[lanes.heavy]\nslots = 1\n"));
    worker.signal(Signal::SIGHUP);
    wait_for("the first reload", || result(0).filter(|effect| effect.ok));
    wait_for("two slots still", || (slots(&bed) == 2).then_some(()));
    let polls = "[poll]\ninterval = \"70ms\"\n[sources.extra]\npath = \"extra.json\"\nkind = \"array\"\n\
                 [sources.ideas]\npath = \"other.json\"\n";
    bed.put("stallproof.toml", config(&bed, 3, polls));
    worker.signal(Signal::SIGHUP);
    let told = wait_for("the second reload", || result(1));
    assert_eq!(told.needs_handover, ["poll.interval", "sources.ideas.path", "sources.extra (added)"]);
    wait_for("three slots", || (slots(&bed) == 3).then_some(()));
    bed.put("ideas_log.json", jobs("a").to_string());
    wait_started(&bed, 1);
    drop(worker);
}

#[test]
fn a_drain_of_an_earlier_worker_is_not_obeyed_by_the_next() {
    let bed = bed_with(1, "");
    let first = bed.start(&[]);
    bed.freeze(&first);
    control(&bed).ask(&[Order::Drain]).unwrap();
    first.sigkill();
    let mut second = bed.start(&[]);
    let event = wait_for("its result", || reader(&bed).events(0).unwrap().remove(0).effect);
    assert!(!event.ok && event.result.contains("is gone"), "{event:?}");
    scheduler_turns(&bed);
    assert!(!second.has_ended());
    assert_eq!(bed.status()["state"], "ready");
}

#[test]
fn a_drain_is_an_event_that_is_marked_before_the_worker_ends() {
    let bed = bed_with(1, "");
    let worker = bed.start(&[]);
    let told = bed.json(&["drain", "--json"]);
    assert_eq!((&told["result"], &told["pid"]), (&json!("stopped"), &json!(worker.pid().as_raw())));
    assert_eq!(worker.wait(), Some(0));
    let events = applied(&bed);
    let effect = events[0].effect.as_ref().unwrap();
    assert_eq!((events[0].verb.as_str(), effect.ok), ("drain", true), "{effect:?}");
    assert_eq!(bed.status()["state"], "stopped");

    let worker = bed.start(&[]);
    assert!(bed.ok(&["drain", "--no-wait"]).contains("was asked to end"));
    assert_eq!(worker.wait(), Some(0));
}

#[test]
fn a_worker_that_follows_no_events_is_drained_by_a_signal() {
    let bed = bed_with(1, "");
    let worker = bed.start(&[]);
    bed.freeze(&worker);
    let mut drain = bed.command(&["drain"]).spawn().unwrap();
    let taken_back = || reader(&bed).events(0).unwrap().first().and_then(|event| event.effect.clone());
    assert!(!wait_for("the event to be taken back", taken_back).ok);
    worker.signal(Signal::SIGCONT);
    assert_eq!(worker.wait(), Some(0));
    assert!(drain.wait().unwrap().success());
}

#[test]
fn a_stopped_worker_keeps_nobody_from_pausing_or_cancelling() {
    let bed = bed_with(1, "");
    add(&bed, &jobs("a b"));
    let worker = bed.start(&[]);
    wait_started(&bed, 1);
    let waiting = if started(&bed) == ["a"] { "b" } else { "a" };
    bed.freeze(&worker);
    let start = Instant::now();
    assert_eq!(bed.ok(&["pause"]), "everything  paused\n");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert!(bed.ok(&["cancel", waiting]).ends_with("cancelled\n"));
    assert_eq!(bed.state(waiting).as_deref(), Some("cancelled"));
    assert!(bed.ok(&["slots", "2", "--no-wait"]).contains("asked"));
    let output = bed.run(&["reload", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["ok"]), (Some(1), &json!(false)), "{told}");
    assert!(told["result"].as_str().unwrap().contains("did not confirm"), "{told}");
    worker.signal(Signal::SIGCONT);
    bed.ok(&["resume"]);
    assert_eq!(applied(&bed).len(), 5);
    drop(worker);
}

#[test]
fn what_only_a_worker_can_do_is_refused_without_one() {
    let bed = bed_with(1, "");
    add(&bed, &jobs("a"));
    for args in [&["slots", "2"][..], &["reload"]] {
        let output = bed.run(args);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no worker is running"), "{output:?}");
    }
    assert!(reader(&bed).events(0).unwrap().is_empty(), "and nothing is left behind");
    assert_eq!(bed.run(&["slots", "0"]).status.code(), Some(2));
}

/// Five orders of a round; each one's result shows whether all before it have taken effect, once.
fn round(number: usize) -> (Vec<Order>, [&'static str; 5]) {
    let job = format!("job-{}", number % 5);
    let target = Target { kind: HoldKind::Lane, name: format!("lane-{}", number % 3) };
    let orders = vec![
        Order::Cancel(job.clone()),
        Order::Pause(target.clone()),
        Order::SetSlots(1 + number % 4),
        Order::Retry(job),
        Order::Resume(target),
    ];
    (orders, ["cancelled", "paused", " slots", "queued again", "resumed"])
}

#[test]
fn two_hundred_and_fifty_events_take_effect_once_and_in_order_across_a_kill() {
    let bed = bed_with(2, "");
    bed.ok(&["init"]);
    let held: Value =
        (0..5).map(|n| json!({"id": format!("job-{n}"), "title": "held", "lane": "held"})).collect();
    add(&bed, &held);
    bed.ok(&["pause", "--lane", "held"]);
    let mut worker: Option<Worker> = Some(bed.start(&[]));
    let mut control = control(&bed);
    let mut expected = Vec::new();
    let applied_so_far =
        || reader(&bed).events(1).unwrap().iter().filter(|event| event.applied_at.is_some()).count();
    for number in 0..50 {
        let (orders, results) = round(number);
        expected.extend(results);
        for order in &orders {
            control.ask(std::slice::from_ref(order)).unwrap();
        }
        // Twice, when most of what was asked has been applied and the last of it has not.
        if number == 20 || number == 35 {
            wait_for("most events", || (applied_so_far() > 5 * (number - 2)).then_some(()));
            worker.take().unwrap().sigkill();
        } else if worker.is_none() && number % 5 == 2 {
            worker = Some(bed.start(&[]));
        }
    }
    wait_for("every event", || {
        let events = reader(&bed).events(1).unwrap();
        (events.len() == 250 && events.iter().all(|event| event.applied_at.is_some())).then_some(())
    });
    let events = applied(&bed);
    let mut gone = 0;
    for (event, expected) in events[1..].iter().zip(expected) {
        let effect = event.effect.as_ref().unwrap();
        if event.verb == "set_slots" && effect.result.contains("is gone") {
            gone += 1;
            continue;
        }
        assert!(effect.ok && effect.result.ends_with(expected), "{event:?}, not {expected}");
    }
    assert!(gone <= 12, "only what a killed worker had not come to: {gone}");
    let mut held: Vec<_> = bed.jobs().iter().map(|job| job["state"].clone()).collect();
    held.dedup();
    assert_eq!(held, ["queued"], "every cancel was followed by a retry");
    let holds = reader(&bed).holds().unwrap();
    assert_eq!(holds.iter().map(|hold| hold.name.as_str()).collect::<Vec<_>>(), ["held"]);
    wait_for("the last number of slots", || (slots(&bed) == 1 + 49 % 4).then_some(()));
    bed.assert_ledger_is_sound();
}
