//! temp
use stallproof::*;
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "handle" => materialize::main(),
        "seed" => {
            let w = workdir::Workdir::open(".".as_ref()).unwrap(); w.prepare().unwrap();
            let mut c = ledger::Control::open(&w.ledger()).unwrap();
            let n: u32 = args[2].parse().unwrap();
            let batch: Vec<_> = (0..n).map(|i| { let id = format!("job-{i}"); let mut h=[0u8;32]; h[..4].copy_from_slice(&i.to_le_bytes());
              let cmd: Vec<String> = args[3..].to_vec();
              let raw = serde_json::json!({"id": id, "command": cmd}).to_string();
              ledger::Wanted { source: "cli".into(), rank: 1, lane: "default".into(), handler: None, timeout_ms: None, priority: 0.0, max_attempts: 4,
                submission: job::Submission::Runnable(job::Entry{ id: job::JobId(id), has_own_id: true, content_hash: job::ContentHash(h), raw, title: "t".into(), language: None, priority: 0.0, run_id: None, lane: None, timeout: None, max_retries: None, retry_count: 0, not_before: None, concurrency_key: None, command: Some(cmd)}) } }).collect();
            c.add(&batch).unwrap(); std::process::ExitCode::SUCCESS
        }
        _ => { let e = worker::run(workdir::Workdir::open(".".as_ref()).unwrap(), worker::Options{until_idle: true, slots: Some(2), ..Default::default()}); std::process::ExitCode::from(e as u8) }
    }
}
