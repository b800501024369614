//! Jobs that run until the file `gate` in their bed is gone, and say in `side.log` when they start and end.

use std::fs;

use super::bed::Bed;

/// Closes the gate.
pub fn shut(bed: &Bed) {
    bed.put("gate", "");
}

/// Lets every gated job end.
pub fn open(bed: &Bed) {
    fs::remove_file(bed.join("gate")).unwrap();
}

/// An entry's command that waits at the gate.
pub fn command(bed: &Bed, id: &str) -> [String; 3] {
    let dir = bed.path().display();
    let script = format!(
        "echo start {id} >> {dir}/side.log; while [ -e {dir}/gate ]; do sleep 0.02; done; echo end {id} >> {dir}/side.log"
    );
    ["sh".to_owned(), "-c".to_owned(), script]
}

/// Adds a gated job.
pub fn add(bed: &Bed, id: &str) {
    let command = command(bed, id);
    let args = ["add", "--title", id, "--", &command[0], &command[1], &command[2]];
    bed.ok(&args);
}

/// Lines of the side log that begin so.
pub fn lines(bed: &Bed, start: &str) -> usize {
    bed.read("side.log").lines().filter(|line| line.starts_with(start)).count()
}

/// Whether every job is completed.
pub fn all_completed(bed: &Bed) -> bool {
    let jobs = bed.jobs();
    !jobs.is_empty() && jobs.iter().all(|job| job["state"] == "completed")
}
