//! A file system whose times have whole seconds only.

use serde_json::json;

use crate::support::bed::Bed;
use crate::support::mount::{Mounted, apart, ext4};
use crate::support::rights::{Right, may};
use crate::support::wait::wait_until;

#[test]
fn edits_of_one_size_within_one_second_are_all_seen() {
    if !may(&[Right::Loop]) {
        return;
    }
    apart(|| {
        let bed = Bed::new();
        let elsewhere = tempfile::tempdir().unwrap();
        let image = elsewhere.path().join("disk");
        ext4(&image, 32, "-I 128");
        let disk = Mounted::image(&image, bed.path());
        let _worker = bed.start(&[]);
        let queue = bed.join("ideas_log.json");
        for n in 0..8 {
            let id = format!("s{n}");
            let text = json!([{"id": id, "title": "s", "code": "x = 1", "language": "python"}]).to_string();
            // In place, so that neither the inode nor the size tells anything.
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&queue)
                .and_then(|file| std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0))
                .unwrap();
            wait_until("the job of this edit", || bed.state(&id).is_some());
        }
        drop(disk);
    });
}
