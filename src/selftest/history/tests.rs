//! Histories that are clean, and the same with one thing wrong in each.

use super::*;

/// Jobs as `id state max_attempts: outcome[pid] …`, with `-` for an attempt that is live.
fn job(text: &str) -> JobHistory {
    let (head, tail) = text.split_once(':').unwrap();
    let head: Vec<&str> = head.split_whitespace().collect();
    let attempts: Vec<AttemptHistory> = (1..)
        .zip(tail.split_whitespace())
        .map(|(number, word)| {
            let (outcome, pid) =
                word.split_once('@').map_or((word, None), |(outcome, pid)| (outcome, pid.parse().ok()));
            AttemptHistory { number, pid, outcome: outcome.parse().ok() }
        })
        .collect();
    let state: State = head[1].parse().unwrap();
    let counted = attempts.iter().filter(|attempt| attempt.outcome.is_some_and(Outcome::counts)).count();
    JobHistory {
        id: head[0].to_owned(),
        state,
        times_ended: u32::from(state.is_terminal()),
        counted: u32::try_from(counted).unwrap(),
        max_attempts: head[2].parse().unwrap(),
        attempts,
    }
}

fn judge(written: &[&str], side: &[&str], jobs: &[JobHistory]) -> Vec<String> {
    // The pid of an attempt in these tables is ten times its number unless the line says another one.
    let side: Vec<SideLine> = side
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let pid = words.get(3).copied().unwrap_or(if words[2] == "1" { "10" } else { "20" });
            format!("{} {} {} {pid} 0", words[0], words[1], words[2]).parse().unwrap()
        })
        .collect();
    let written: Vec<WriterLine> = written.iter().map(|line| line.parse().unwrap()).collect();
    let limits = Limits { lanes: BTreeMap::from([("narrow".to_owned(), 1)]), per_key: Some(2) };
    let history = History { side: &side, written: &written, jobs, limits: &limits };
    check(&history).iter().map(ToString::to_string).collect()
}

const WROTE: [&str; 2] = ["write a completed - -", "wrote a completed - -"];

#[test]
fn clean_histories_are_clean() {
    let clean: [(&[&str], &[&str], &[&str]); 9] = [
        (&[], &[], &[]),
        (&WROTE, &["start a 1", "tick a 1", "end a 1"], &["a completed 1: succeeded@10"]),
        // The writer was killed before it could say that it was done: both ways are fine.
        (&["write a completed - -"], &[], &[]),
        (&["write a completed - -"], &["start a 1", "end a 1"], &["a completed 1: succeeded@10"]),
        // An attempt that failed, one that was cut short, one that was killed before its first line.
        (
            &WROTE,
            &["start a 1", "end a 1", "start a 2", "end a 2"],
            &["a completed 2: failed@10 succeeded@20"],
        ),
        (&WROTE, &["start a 1", "tick a 1", "start a 2", "end a 2"], &["a completed 2: lost succeeded@20"]),
        (&WROTE, &["start a 2", "end a 2"], &["a completed 2: interrupted succeeded@20"]),
        // What it left behind may live on until the next attempt begins.
        (&WROTE, &["start a 1", "end a 1", "left a 1 77"], &["a completed 1: succeeded@10"]),
        (&["wrote a failed - -"], &["start a 1"], &["a failed 1: timed_out@10"]),
    ];
    for (written, side, jobs) in clean {
        let jobs: Vec<JobHistory> = jobs.iter().map(|text| job(text)).collect();
        assert_eq!(judge(written, side, &jobs), Vec::<String>::new(), "{side:?} {jobs:?}");
    }
}

#[test]
fn each_broken_promise_is_found_and_named() {
    // writer | side log | job: what is found
    for row in [
        "W | | => a: was written and has no job",
        " | start 1, end 1 | a completed 1: succeeded@10 => a: has a job, and nobody wrote it",
        "W | | a queued 1: => a: is queued and reached an end 0 times instead of once",
        "W | start 1, end 1 | a failed 1: failed@10 => a: ended failed instead of completed",
        "W | start 1, start 2, end 2 | a running 9: - succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | start 1, start 2, end 2 | a completed 9: succeeded@10 succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | start 1, start 2, tick 1, end 2 | a completed 9: lost succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | start 1, start 2, end 1, end 2 | a completed 9: lost succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | start 1, end 1, start 2, left 1, end 2 | a completed 9: failed@10 succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | start 2, start 1, end 2 | a completed 9: lost succeeded@20 => a: attempts 1 and 2 were live at once",
        "W | | a running 9: - - => a: attempts 1 and 2 were live at once",
        "W | start 1, end 1, start 2, end 2 | a completed 9: succeeded@10 succeeded@20 => a: attempt 2 was made although attempt 1 had succeeded",
        "W | start 2, end 2 | a completed 1: lost succeeded@20 => a: 2 attempts counted, 1 allowed",
        "W | start 1, end 1, start 2, end 2 | a completed 9: succeeded@10 => a: attempt 2 ran and is not in the ledger",
        "W | start 1, start 1, end 1 | a completed 9: succeeded@10 => a: attempt 1 was started twice under one number",
        "W | start 1, end 1, tick 1 | a completed 9: succeeded@10 => a: attempt 1 acted before its start or after its end",
        "W | end 1, start 1 | a completed 9: succeeded@10 => a: attempt 1 acted before its start or after its end",
        "W | start 1 99, end 1 | a completed 9: succeeded@10 => a: attempt 1 ran in another process than the ledger says",
        "W | start 1 | a completed 9: succeeded@10 => a: attempt 1 succeeded in the ledger and did not run to its end",
        "W | | a completed 9: succeeded@10 => a: attempt 1 succeeded in the ledger and did not run to its end",
    ] {
        let (history, expected) = row.split_once(" => ").unwrap();
        let parts: Vec<&str> = history.split('|').map(str::trim).collect();
        let written: &[&str] = if parts[0] == "W" { &WROTE } else { &[] };
        let side = parts[1].split(", ").filter(|line| !line.is_empty());
        let side: Vec<String> = side.map(|line| line.replacen(' ', " a ", 1)).collect();
        let side: Vec<&str> = side.iter().map(String::as_str).collect();
        let jobs: Vec<JobHistory> =
            parts.get(2).filter(|text| text.contains(':')).map(|text| job(text)).into_iter().collect();
        let found = judge(written, &side, &jobs);
        assert!(found.iter().any(|line| line == expected), "{row}\ngave {found:?}");
    }
    assert!(judge(&WROTE, &["start b 1"], &[]).contains(&"b: has a job, and nobody wrote it".to_owned()));
}

#[test]
fn a_second_end_of_a_job_is_found() {
    let ended = JobHistory { times_ended: 2, ..job("a completed 1: succeeded@10") };
    let found = judge(&WROTE, &["start a 1", "end a 1"], &[ended]);
    assert_eq!(found, ["a: is completed and reached an end 2 times instead of once"]);
}

#[test]
fn lanes_and_keys_are_counted_by_what_lives_at_once() {
    let jobs: Vec<JobHistory> =
        ["a", "b", "c"].map(|id| job(&format!("{id} completed 1: succeeded@10"))).to_vec();
    let inside = ["start a 1", "start b 1", "end a 1", "start c 1", "end b 1", "end c 1"];
    let all_three = ["start a 1", "start b 1", "start c 1", "end a 1", "end b 1", "end c 1"];
    let keyed = ["a", "b", "c"].map(|id| format!("wrote {id} completed - k"));
    let keyed = keyed.each_ref().map(String::as_str);
    assert_eq!(judge(&keyed, &inside, &jobs), Vec::<String>::new());
    assert_eq!(judge(&keyed, &all_three, &jobs), ["key k: 3 lived at once, 2 allowed"]);
    let lanes = ["wrote a completed narrow -", "wrote b completed narrow -", "wrote c completed wide -"];
    assert_eq!(judge(&lanes, &inside, &jobs), ["lane narrow: 2 lived at once, 1 allowed"]);
    let in_turn = ["start a 1", "start c 1", "end a 1", "start b 1", "end b 1", "end c 1"];
    assert_eq!(judge(&lanes, &in_turn, &jobs), Vec::<String>::new());
}

#[test]
fn an_attempt_without_a_last_line_lives_no_longer_than_its_lines_show() {
    let jobs = [job("a completed 9: lost succeeded@20"), job("b completed 1: succeeded@10")];
    let lanes = ["wrote a completed narrow -", "wrote b completed narrow -"];
    let side = ["start a 1", "start b 1", "end b 1", "start a 2", "end a 2"];
    assert_eq!(judge(&lanes, &side, &jobs), Vec::<String>::new());
    let side = ["start a 1", "start b 1", "tick a 1", "end b 1", "start a 2", "end a 2"];
    assert_eq!(judge(&lanes, &side, &jobs), ["lane narrow: 2 lived at once, 1 allowed"]);
}
