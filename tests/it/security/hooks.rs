//! Webhooks that lead home, lead on, never answer or never end; and that nothing of ours listens.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::bed::Bed;
use crate::support::monitor;

/// Listens at `address`, counts those who come, and has each served by `serve` on a thread of its own.
fn listen(address: &str, serve: fn(TcpStream)) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream));
        }
    });
    (port, count)
}

/// What a test alert to this address gives: whether it arrived, what was said, and how long that took.
fn alert(url: &str, allow_private: bool) -> (bool, String, Duration) {
    let bed =
        Bed::with_config(&format!("[monitor.webhook]\nurl = \"{url}\"\nallow_private = {allow_private}\n"));
    let begun = Instant::now();
    let output = monitor::run(&bed, &["--test-alert"]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said, begun.elapsed())
}

#[test]
fn a_webhook_that_leads_home_is_not_even_connected_to() {
    let (port, count) = listen("127.0.0.1:0", drop);
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "localhost",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00::1]",
    ];
    std::thread::scope(|scope| {
        for host in hosts {
            scope.spawn(move || {
                let (arrived, said, took) = alert(&format!("https://{host}:{port}/canary-8c1f"), false);
                assert!(!arrived, "{host}: {said}");
                assert!(
                    said.contains("private address") || said.contains("cannot be resolved"),
                    "{host}: {said}"
                );
                assert!(!said.contains("canary"), "{host}: {said}");
                assert!(took < Duration::from_secs(15), "{host}: {took:?}");
            });
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let (arrived, said, _) = alert("http://example.org/canary-8c1f", false);
    assert!(!arrived && said.contains("plain http") && !said.contains("canary"), "{said}");
}

/// Reads one request, as far as it is there.
fn request(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 8192]);
}

fn redirect(mut stream: TcpStream) {
    request(&mut stream);
    let port = stream.local_addr().unwrap().port();
    let _ = write!(
        stream,
        "HTTP/1.1 303 See there\r\nlocation: http://localhost:{port}/again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

fn silence(mut stream: TcpStream) {
    // Until the other side gives up.
    while stream.read(&mut [0; 8192]).is_ok_and(|count| count > 0) {}
}

fn endless_body(mut stream: TcpStream) {
    request(&mut stream);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
    while stream.write_all(&[b'x'; 65_536]).is_ok() {}
}

fn endless_head(mut stream: TcpStream) {
    request(&mut stream);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
    while stream.write_all(&[b"x-fill: ", &[b'x'; 4096][..], b"\r\n"].concat()).is_ok() {}
}

#[test]
fn a_webhook_that_leads_on_never_answers_or_never_ends_is_bounded() {
    for (name, serve, arrives) in [
        ("redirect", redirect as fn(TcpStream), false),
        ("silence", silence, false),
        ("endless body", endless_body, true),
        ("endless head", endless_head, false),
    ] {
        let (port, count) = listen("127.0.0.1:0", serve);
        let (arrived, said, took) = alert(&format!("http://127.0.0.1:{port}/canary-8c1f"), true);
        assert_eq!(arrived, arrives, "{name}: {said}");
        assert!(took < Duration::from_secs(15), "{name}: {took:?}");
        assert!(!said.contains("canary"), "{name}: {said}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{name}: nobody is asked twice");
    }
}

/// Inodes of sockets that listen, by any protocol.
fn listening(pid: i32) -> Vec<String> {
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let mut inodes = Vec::new();
    for (name, state, listens, inode) in
        [("tcp", 3, "0A", 9), ("tcp6", 3, "0A", 9), ("unix", 3, "00010000", 6)]
    {
        for line in table(name).lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(state) == Some(&listens) {
                inodes.push(format!("socket:[{}]", fields[inode]));
            }
        }
    }
    // A datagram socket is open to all as soon as it is bound.
    for name in ["udp", "udp6"] {
        let lines = table(name);
        inodes.extend(
            lines
                .lines()
                .skip(1)
                .map(|line| format!("socket:[{}]", line.split_whitespace().nth(9).unwrap_or_default())),
        );
    }
    inodes
}

#[test]
fn nothing_of_ours_listens() {
    let bed = Bed::with_config("[worker]\nslots = 2\n");
    let worker = bed.start(&[]);
    let watching = monitor::watch(&bed, monitor::command(&bed, &["--monitor"]));
    let holders = worker.holders();
    assert_eq!(holders.len(), 2);
    let pids = holders.iter().map(|id| id.pid).chain([worker.pid().as_raw(), watching.pid().cast_signed()]);
    for pid in pids {
        let listening = listening(pid);
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let found: Vec<_> =
            links.filter(|link| listening.iter().any(|inode| link.as_os_str() == inode.as_str())).collect();
        assert!(found.is_empty(), "{pid} listens: {found:?}");
    }
}
