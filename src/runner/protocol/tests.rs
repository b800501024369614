//! Tests of the protocol: every message survives the way there, in any pieces; nothing hostile gets through.

use std::os::unix::ffi::OsStringExt;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::runner::record::tests::any_record;

fn any_text() -> impl Strategy<Value = OsString> {
    vec(any::<u8>(), 0..40).prop_map(OsString::from_vec)
}

fn any_request() -> impl Strategy<Value = Request> {
    let places = (any::<u64>(), any_text(), any_text(), any::<bool>());
    let command = (any_text(), any_text(), vec(any_text(), 0..5), vec((any_text(), any_text()), 0..5));
    let limits = (vec(any::<u8>(), 0..300), any::<Option<u64>>(), any::<u64>(), any::<u64>());
    (places, command, limits).prop_map(|(places, command, limits)| Request {
        tag: places.0,
        attempt_dir: places.1.into(),
        cwd: places.2.into(),
        create_cwd: places.3,
        program: command.0.into(),
        arg0: command.1,
        args: command.2,
        env: command.3,
        stdin: limits.0,
        timeout_ms: limits.1,
        grace_ms: limits.2,
        log_cap_bytes: limits.3,
    })
}

fn any_report() -> impl Strategy<Value = Report> {
    prop_oneof![
        (any::<u64>(), any::<i32>(), any::<u64>()).prop_map(|(tag, pid, started_at_ms)| Report::Started {
            tag,
            pid,
            started_at_ms
        }),
        (any::<u64>(), any_record()).prop_map(|(tag, record)| Report::Exited { tag, record }),
    ]
}

#[test]
fn an_oversized_length_is_refused_before_its_body_arrives() {
    let mut buffer = FrameBuffer::default();
    buffer.push(&u32::MAX.to_le_bytes());
    assert_eq!(buffer.next_frame(), Err(ProtocolError::TooLarge { length: u32::MAX as usize }));
}

#[test]
fn another_version_is_named() {
    assert_eq!(Request::decode(&[9, KIND_START]), Err(ProtocolError::Version { found: 9 }));
    assert_eq!(Request::decode(&[]), Err(ProtocolError::Garbled { field: "header" }));
}

#[test]
fn a_huge_count_takes_no_memory() {
    let mut out = Writer::new(KIND_START);
    out.u64(1);
    for _ in 0..2 {
        out.bytes(b"/x");
    }
    out.flag(false);
    out.bytes(b"/bin/true");
    out.bytes(b"true");
    out.u64(u64::MAX);
    let frame = out.into_frame().unwrap();
    assert_eq!(Request::decode(&frame[LENGTH_BYTES..]), Err(ProtocolError::Garbled { field: "args" }));
}

proptest! {
    #[test]
    fn messages_survive_any_cutting(
        requests in vec(any_request(), 1..4),
        cuts in vec(1usize..200, 1..20),
    ) {
        let mut stream = Vec::new();
        for request in &requests {
            stream.extend(request.encode().unwrap());
        }
        let mut buffer = FrameBuffer::default();
        let mut received = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            buffer.push(piece);
            while let Some(body) = buffer.next_frame().unwrap() {
                received.push(Request::decode(body).unwrap());
            }
            rest = later;
        }
        prop_assert_eq!(received, requests);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn reports_survive(report in any_report()) {
        let frame = report.encode().unwrap();
        prop_assert_eq!(Report::decode(&frame[LENGTH_BYTES..]), Ok(report));
    }

    #[test]
    fn a_body_cut_short_or_too_long_is_refused(request in any_request(), place in any::<prop::sample::Index>()) {
        let frame = request.encode().unwrap();
        let body = &frame[LENGTH_BYTES..];
        prop_assert!(Request::decode(&body[..place.index(body.len())]).is_err());
        prop_assert!(Request::decode(&[body, &[0]].concat()).is_err());
    }

    #[test]
    fn garbage_never_panics(body in vec(any::<u8>(), 0..300)) {
        let with_header = [&[VERSION, KIND_START][..], &body].concat();
        let _ = Request::decode(&with_header);
        let _ = Report::decode(&body);
        let mut buffer = FrameBuffer::default();
        buffer.push(&body);
        while let Ok(Some(_)) = buffer.next_frame() {}
    }
}
