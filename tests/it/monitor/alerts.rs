//! Alerts on their way out: a receiver that is away loses nothing, whoever is killed meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::support::bed::Bed;
use crate::support::monitor::{command, holder, watch};
use crate::support::wait::wait_for;

const KEY: &str = "a key of the receiver's";
const QUICK: [&str; 5] = ["--monitor", "--stale-after", "3s", "--interval", "500ms"];

/// The head and the body of one request, which is answered with `status`.
fn receive(mut stream: TcpStream, status: &str) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let body = &bytes[end + 4..];
            if body.len() == length.parse::<usize>().unwrap() {
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                return (head, body.to_vec());
            }
        }
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the request ended early");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// The event of a request whose signature is right.
fn signed_event(head: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(head.contains(&format!("x-stallproof-signature: sha256={hex}")), "{head}");
    let event: Value = serde_json::from_slice(body).unwrap();
    event["event"].as_str().unwrap().to_owned()
}

#[test]
fn a_webhook_that_was_away_gets_every_event_signed_also_from_the_next_monitor() {
    // The port is taken, and nobody can listen at it, until the receiver is back.
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = away.local_addr().unwrap();
    drop(away);
    let bed = Bed::new();
    bed.put("key", format!("{KEY}\n"));
    let hook = format!(
        "[monitor.webhook]\nurl = \"http://{address}/\"\nsecret_file = \"key\"\nallow_private = true\n"
    );
    bed.put("stallproof.toml", hook);
    let waiting = || {
        let letters = std::fs::read_dir(bed.join(".stallproof/alerts")).into_iter().flatten().flatten();
        letters.filter(|letter| letter.file_name().to_string_lossy().ends_with("-webhook.json")).count()
    };
    let worker = bed.start(&[]);
    let first = watch(&bed, command(&bed, &QUICK));
    worker.sigkill();
    wait_for("another worker", || holder(&bed));
    wait_for("events that wait", || (waiting() >= 3).then_some(()));
    drop(first);

    let back = TcpListener::bind(address).unwrap();
    back.set_nonblocking(true).unwrap();
    // The monitor leaves its worker behind only when it is killed; a new one finds the letters of the first.
    let _worker = bed.start(&[]);
    let _second = watch(&bed, command(&bed, &QUICK));
    let mut events: Vec<String> = Vec::new();
    let mut refused = false;
    let mut serve = || {
        if let Ok((stream, _)) = back.accept() {
            stream.set_nonblocking(false).unwrap();
            if std::mem::replace(&mut refused, true) {
                let (head, body) = receive(stream, "204 No Content");
                events.push(signed_event(&head, &body));
            } else {
                receive(stream, "503 Later");
            }
        }
        ["stall", "restart", "recovery"].iter().all(|kind| events.iter().any(|got| got == kind))
    };
    wait_for("the events of the first monitor", || serve().then_some(()));
    // The second monitor may have something to tell as well.
    wait_for("an empty spool", || (serve() && waiting() == 0).then_some(()));
    let restarts = events.iter().filter(|event| *event == "restart").count();
    assert_eq!(restarts, 1, "delivered once: {events:?}");
}
