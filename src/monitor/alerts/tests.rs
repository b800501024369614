//! Alerts by a command: what arrives, what is tried again, and what a receiver that fails is said to have done.

use std::path::PathBuf;

use super::*;
use crate::monitor::scene::LimitFlags;
use crate::workdir::Workdir;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bed {
    scene: Scene,
    _dir: tempfile::TempDir,
}

/// With a shell script as the alert command; it runs in the directory.
fn bed(script: Option<&str>) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let workdir = Workdir::open(dir.path()).unwrap();
    workdir.prepare().unwrap();
    std::fs::create_dir_all(workdir.logs()).unwrap();
    let mut scene = Scene::open(workdir, LimitFlags::default()).unwrap();
    scene.config.monitor.alert =
        script.map(|script| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]);
    Bed { scene, _dir: dir }
}

impl Bed {
    fn path(&self, name: &str) -> PathBuf {
        self.scene.workdir.root().join(name)
    }

    fn event(&self) -> Event {
        Event::new(&self.scene, Kind::Stall, "it stands".to_owned())
    }
}

#[test]
fn an_event_says_where_it_happened_and_goes_to_the_channels_there_are() {
    let quiet = bed(None);
    assert_eq!(channels(&quiet.scene), []);
    for channel in [Channel::Command, Channel::Webhook] {
        let err = deliver(&quiet.scene, channel, &quiet.event()).unwrap_err();
        assert_eq!(err, "the channel is no longer configured");
    }
    let bed = bed(Some("cat > got"));
    assert_eq!(channels(&bed.scene), [Channel::Command]);
    deliver(&bed.scene, Channel::Command, &bed.event()).unwrap();
    let got: Event = serde_json::from_slice(&std::fs::read(bed.path("got")).unwrap()).unwrap();
    assert_eq!((got.event, got.text.as_str()), (Kind::Stall, "it stands"));
    assert_eq!(got.dir, bed.scene.workdir.root().to_str().unwrap());
    assert!(!got.host.is_empty() && got.version == env!("CARGO_PKG_VERSION") && got.pid.is_none());
}

#[test]
fn a_command_that_fails_or_is_not_there_has_not_delivered() {
    let failing = bed(Some("echo said; exit 3"));
    let err = deliver(&failing.scene, Channel::Command, &failing.event()).unwrap_err();
    assert!(err.starts_with("the alert command failed (exit status: 3)"), "{err}");
    let out = std::fs::read_to_string(failing.scene.workdir.logs().join("alert.out")).unwrap();
    assert_eq!(out, "said\n");
    let mut absent = bed(None);
    absent.scene.config.monitor.alert = Some(vec!["/nonexistent/alert".to_owned()]);
    let err = deliver(&absent.scene, Channel::Command, &absent.event()).unwrap_err();
    assert!(err.starts_with("cannot start the alert command: "), "{err}");
}

#[test]
fn a_letter_is_tried_when_it_is_due_and_goes_once_it_was_delivered() {
    // Fails until the file is there.
    let bed = bed(Some("echo x >> tries; test -e open"));
    let spool = Spool::open(&bed.scene.workdir.state().join("alerts")).unwrap();
    spool.put(&Letter::new(Channel::Command, bed.event())).unwrap();
    let tries = || std::fs::read_to_string(bed.path("tries")).unwrap().lines().count();
    let before = Instant::now();
    let next = deliver_due(&bed.scene, &spool).unwrap();
    assert!(next > before && tries() == 1);
    assert_eq!(spool.letters()[0].1.tries, 1);
    let (path, mut letter) = spool.letters().remove(0);
    // Many failures put it off for minutes, so that it is certainly not due.
    letter.tries = 20;
    let late = spool.failed(&path, &mut letter).unwrap();
    assert_eq!((deliver_due(&bed.scene, &spool), tries()), (Some(late), 1), "it is not due");
    File::create(bed.path("open")).unwrap();
    // A monitor that starts anew tries everything at once.
    let spool = Spool::open(&bed.scene.workdir.state().join("alerts")).unwrap();
    assert_eq!((deliver_due(&bed.scene, &spool), tries()), (None, 2));
    assert_eq!(spool.letters().len(), 0);
}

#[test]
fn what_is_sent_arrives_without_anybody_waiting_for_it() {
    let bed = bed(Some("cat > new; mv new got"));
    let alerts = Alerts::start(&bed.scene).unwrap();
    // The first wait of the thread is a minute: it has to be woken.
    for n in ["one", "two"] {
        alerts.send(&Event::new(&bed.scene, Kind::Test, n.to_owned()));
        let since = Instant::now();
        while !std::fs::read_to_string(bed.path("got")).is_ok_and(|text| text.contains(n)) {
            assert!(since.elapsed() < PATIENCE, "`{n}` does not arrive");
            std::thread::yield_now();
        }
    }
}
