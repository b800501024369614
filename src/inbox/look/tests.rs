//! A look at a file that has changed in part, against one that knows nothing of it.

use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;

/// A file and what is remembered of it. Its first elements are known, as jobs of the same number.
struct Bed {
    file: NamedTempFile,
    view: View,
    prefix: Prefix,
}

impl Bed {
    fn new(text: &str) -> Self {
        let bed =
            Self { file: NamedTempFile::new().unwrap(), view: View::default(), prefix: Prefix::default() };
        bed.file.as_file().write_all_at(text.as_bytes(), 0).unwrap();
        bed
    }

    /// Looks, with or without what is remembered.
    fn sight(&self, last: &View, prefix: &Prefix) -> Sight {
        let doing = Doing::default();
        Looker { path: self.file.path(), last, prefix, quiet: true, doing: &doing }.look()
    }

    fn look(&self) -> Content {
        match self.sight(&self.view, &self.prefix) {
            Sight::Whole(content) => content,
            other => panic!("{other:?}"),
        }
    }

    /// Looks and remembers: every element is a job.
    fn learn(&mut self) {
        let Content { prefix, kept, mut end, unknown, .. } = self.look();
        for one in unknown {
            let key = end.key(one.slot);
            end.identify(one.slot, number(key), State::Queued);
        }
        end.identify_copies();
        self.view.replace_end(kept, end);
        self.prefix = prefix;
    }
}

/// A number for a job that stays the same for the same bytes.
fn number(key: ElementKey) -> i64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() >> 2) as i64
}

fn array(elements: &[String]) -> String {
    format!("[\n{}\n]\n", elements.join(",\n"))
}

fn element(n: usize, bytes: usize) -> String {
    format!("{{\"id\": \"{n}\", \"é\": \"{}\"}}", "x".repeat(bytes))
}

/// A file of some 30 elements and 6 MiB.
fn elements() -> Vec<String> {
    (0..30).map(|n| element(n, 100_000 + 7919 * n)).collect()
}

#[test]
fn what_is_appended_is_all_that_is_taken_apart() {
    let mut all = elements();
    let mut bed = Bed::new(&array(&all));
    bed.learn();
    assert_eq!(bed.view.len(), 30);
    all.push(element(99, 10));
    bed.file.as_file().write_all_at(array(&all).as_bytes(), 0).unwrap();
    let content = bed.look();
    let (kept, end) = (content.kept, content.end.len());
    assert!(kept >= 20 && kept + end == 31, "{kept} of 31 are kept, {end} taken apart");
    let [one] = &*content.unknown else { panic!("{:?}", content.unknown) };
    assert_eq!((one.place(), one.slot as usize), ((32, 1), end - 1));
    assert_eq!(content.read(one, content.end.key(one.slot)), Some(all[30].clone().into_bytes()));
}

#[test]
fn a_file_without_a_complete_block_is_always_new() {
    let mut bed = Bed::new(&array(&elements()[..5]));
    bed.learn();
    assert_eq!((bed.look().kept, bed.look().end.len()), (0, 5));
}

#[test]
fn what_stands_behind_damage_is_found_whatever_of_the_beginning_is_as_it_was() {
    for count in [12, 30] {
        let all = elements();
        let text = array(&all[..count]);
        let mut bed = Bed::new(&text);
        bed.learn();
        // The last but one is not closed.
        let open = text.rfind("}\n]").unwrap() - all[count - 1].len() - 2;
        assert_eq!(text.as_bytes()[open], b'}');
        bed.file.as_file().write_all_at(b"x", open as u64).unwrap();
        let Sight::Damaged(mut content, damage) = bed.sight(&bed.view, &bed.prefix) else {
            panic!("it is whole")
        };
        assert_eq!((content.kept, content.prefix.end(), content.end.len()), (0, None, count - 2));
        content.salvage(&damage, &bed.view, &Doing::default()).unwrap();
        let last = ElementKey::of(all[count - 1].as_bytes());
        assert_eq!((content.end.len(), content.end.slot(last).is_some()), (count - 1, true), "of {count}");
    }
}

#[test]
fn elements_from_a_certain_one_on_can_be_looked_at_again() {
    let mut bed = Bed::new(&array(&elements()));
    bed.learn();
    let kept = bed.look().kept;
    bed.prefix.end_before(kept);
    assert_eq!(bed.look().kept, kept);
    bed.prefix.end_before(kept - 1);
    assert!((1..kept).contains(&bed.look().kept));
    bed.prefix.end_before(0);
    assert_eq!((bed.look().kept, bed.look().end.len()), (0, 30));
}

/// What somebody does to the file.
#[derive(Clone, Debug)]
enum Change {
    Append(usize),
    Drop(usize),
    Edit(usize, usize),
    Move(usize, usize),
    Blanks(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..300_000_usize).prop_map(Change::Append),
        (0..30_usize).prop_map(Change::Drop),
        (0..30_usize, 0..300_000_usize).prop_map(|(n, bytes)| Change::Edit(n, bytes)),
        (0..30_usize, 0..30_usize).prop_map(|(from, to)| Change::Move(from, to)),
        (0..30_usize).prop_map(Change::Blanks),
    ]
}

fn apply(change: Change, all: &mut Vec<String>, fresh: usize) {
    let at = |n: usize, all: &[String]| n % all.len().max(1);
    match change {
        Change::Append(bytes) => all.push(element(fresh, bytes)),
        Change::Drop(n) if !all.is_empty() => drop(all.remove(at(n, all))),
        Change::Edit(n, bytes) if !all.is_empty() => {
            let at = at(n, all);
            all[at] = element(fresh, bytes);
        }
        Change::Move(from, to) if !all.is_empty() => {
            let one = all.remove(at(from, all));
            all.insert(at(to, all), one);
        }
        Change::Blanks(n) if !all.is_empty() => {
            let at = at(n, all);
            all[at] = format!("\n  {}", all[at]);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever has become of the file: what was kept and what was taken apart are together what a reader sees who knows
    /// all elements and nothing of their places.
    #[test]
    fn a_look_at_what_has_changed_sees_what_a_look_at_everything_sees(
        rounds in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..5),
    ) {
        let mut all = elements();
        let mut bed = Bed::new(&array(&all));
        bed.learn();
        for (round, changes) in rounds.into_iter().enumerate() {
            for (n, change) in changes.into_iter().enumerate() {
                apply(change, &mut all, 100 + 10 * round + n);
            }
            let text = array(&all);
            bed.file.as_file().set_len(text.len() as u64).unwrap();
            bed.file.as_file().write_all_at(text.as_bytes(), 0).unwrap();

            let part = bed.look();
            let Sight::Whole(whole) = bed.sight(&bed.view, &Prefix::default()) else { panic!("it is whole") };
            prop_assert_eq!(part.kept + part.end.len(), whole.end.len());
            let places = |content: &Content| -> Vec<_> {
                content.unknown.iter().map(|one| (one.range(), one.place(), content.kept + one.slot as usize)).collect()
            };
            prop_assert_eq!(places(&part), places(&whole));
            for slot in 0..whole.end.len() {
                let key = whole.end.key(u32::try_from(slot).unwrap());
                let of_part = match slot.checked_sub(part.kept) {
                    None => bed.view.key(u32::try_from(slot).unwrap()),
                    Some(slot) => part.end.key(u32::try_from(slot).unwrap()),
                };
                prop_assert_eq!(of_part, key);
            }
            bed.learn();
            let keys: Vec<_> = (0..all.len()).map(|slot| bed.view.key(u32::try_from(slot).unwrap())).collect();
            let expected: Vec<_> = all.iter().map(|one| ElementKey::of(one.trim_start().as_bytes())).collect();
            prop_assert_eq!(keys, expected);
            prop_assert_eq!(bed.view.first_without_job(), None);
        }
    }
}
