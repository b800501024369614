//! What is said about files that were rejected, by whom and whenever that was.

use std::fs::{File, create_dir, remove_file};
use std::io::Write as _;

use super::*;
use crate::config::Live;
use crate::inbox::testbed::TestBed;

struct Bed {
    bed: TestBed,
    refused: Refused,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        let bed = TestBed::new();
        create_dir(bed.path("drop")).unwrap();
        create_dir(bed.path("drop/rejected")).unwrap();
        let refused = Refused::new(&bed.path("drop"));
        Self { bed, refused, now: Instant::now() }
    }

    fn put(&self, name: &str, text: &str) {
        File::create(self.bed.path("drop/rejected").join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Looks when it is time again.
    fn look(&mut self) -> bool {
        self.now = self.now.max(self.refused.next_look());
        let settings = Live::fixed(self.bed.config.clone());
        let intake =
            Intake::new("drop", settings, self.bed.ledger.clone(), self.bed.runtime.handle().clone());
        let has_looked = self.refused.look(&intake, &Doing::default(), self.now);
        assert_eq!(self.refused.next_look(), self.now + PAUSE);
        assert!(!self.refused.look(&intake, &Doing::default(), self.now), "not twice at one time");
        assert!(!self.refused.look(&intake, &Doing::default(), self.now + PAUSE - Duration::from_millis(1)));
        has_looked
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.refused.problems("drop").collect();
        problems.sort_by(|a, b| (&a.file, &a.error).cmp(&(&b.file, &b.error)));
        problems
    }
}

const ELSEWHERE: &str = "; put the mended file into `drop/` and delete this one";

#[test]
fn a_refused_file_is_told_by_what_is_wrong_with_it_or_else_by_what_was_said_then() {
    let mut bed = Bed::new();
    bed.put("a.json", r#"{"id": "a", "title": "sound"}"#);
    bed.put("a.json.reason.txt", "  id `a` is another job's \n");
    bed.put("b.json", r#"{"id": "b", "title": "sound"}"#);
    bed.put("c.json", r#"[{"id": "c", "title": "sound"} oops"#);
    bed.put("notes.txt", "{");
    assert!(bed.look());
    let problems = bed.problems();
    let conflict = |name: &str, error: &str| Problem {
        file: format!("drop/rejected/{name}.json"),
        field: Some("id".to_owned()),
        found: Some(name.to_owned()),
        expected: Some("an id that no job with other content has".to_owned()),
        id: Some(name.to_owned()),
        ..Problem::of_file(
            ProblemKind::Conflict,
            error.to_owned(),
            &format!("Give the entry another `id` to run it, or forget it{ELSEWHERE}"),
        )
    };
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[0], conflict("a", "id `a` is another job's"));
    assert_eq!(problems[1], conflict("b", "it was rejected"));
    let broken = &problems[2];
    assert_eq!((broken.file.as_str(), broken.problem), ("drop/rejected/c.json", ProblemKind::DamagedFile));
    assert_eq!(broken.fix, format!("Correct the JSON of the file{ELSEWHERE}"));
    assert!(broken.error.starts_with("c.json:1:"), "{}", broken.error);
}

#[test]
fn a_folder_that_changes_is_read_again_but_not_what_stayed_in_it() {
    let mut bed = Bed::new();
    bed.put("a.json", r#"{"id": "a"}"#);
    assert!(bed.look());
    let before = bed.problems();
    assert_eq!((before.len(), before[0].problem), (1, ProblemKind::Rejected));
    // A mark on what is known shows whether it was read again.
    for (_, problems) in bed.refused.known.values_mut() {
        problems[0].error = "known".to_owned();
    }
    bed.put("b.json", "{");
    assert!(bed.look());
    let errors = |bed: &Bed| bed.problems().into_iter().map(|one| one.error).collect::<Vec<_>>();
    assert_eq!((errors(&bed).len(), errors(&bed)[0].as_str()), (2, "known"));
    bed.put("a.json", r#"{"id": "another"}"#);
    remove_file(bed.bed.path("drop/rejected/b.json")).unwrap();
    assert!(bed.look());
    assert_eq!(bed.problems().len(), 1);
    assert_ne!(errors(&bed), ["known"]);
    // A folder that has not changed for a while is not looked into; one that is gone has nothing in it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while bed.look() {
        assert!(Instant::now() < deadline, "it never comes to rest");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(bed.problems().len(), 1);
    std::fs::remove_dir_all(bed.bed.path("drop")).unwrap();
    assert!(bed.look());
    assert_eq!((bed.problems(), bed.refused.face), (vec![], None));
}
