//! Lets records gather: after it has written what there was, the thread that writes them rests for a moment.
//!
//! Otherwise it is woken for every single one, and before it sleeps again looks several times whether there is another:
//! a tenth of what a short job cost the worker. What comes in that moment is fetched behind it, and lost when the worker is
//! killed before.

use std::io::{self, Write};
use std::time::Duration;

/// Shorter than anybody who reads along would notice.
const REST: Duration = Duration::from_millis(10);

/// Passes everything on, and rests when it is flushed, which the thread does when no record is left.
#[derive(Debug)]
pub(super) struct Restful<W>(pub(super) W);

impl<W: Write> Write for Restful<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        self.0.write(record)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(REST);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tracing_appender::non_blocking::NonBlockingBuilder;

    use super::*;

    /// How many records stood there at each flush.
    #[derive(Clone, Debug, Default)]
    struct Seen(Arc<Mutex<(usize, Vec<usize>)>>);

    impl Write for Seen {
        fn write(&mut self, record: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().0 += 1;
            Ok(record.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            let mut seen = self.0.lock().unwrap();
            let records = seen.0;
            seen.1.push(records);
            Ok(())
        }
    }

    #[test]
    fn a_record_is_written_at_once_and_those_that_follow_it_together() {
        let seen = Seen::default();
        let (mut log, guard) = NonBlockingBuilder::default().finish(Restful(seen.clone()));
        log.write_all(b"first").unwrap();
        let begun = Instant::now();
        while seen.0.lock().unwrap().1.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the first record was not written");
            std::thread::yield_now();
        }
        for _ in 0..100 {
            log.write_all(b"another").unwrap();
        }
        drop(guard);
        let (records, flushes) = seen.0.lock().unwrap().clone();
        assert_eq!((records, flushes.first()), (101, Some(&1)));
        assert!(flushes.len() < 50, "{flushes:?}");
    }
}
