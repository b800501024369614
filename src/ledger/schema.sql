-- The ledger, version 1. Times are milliseconds since the Unix epoch, UTC.
-- The state machine is enforced here: no code path can make an illegal move, a second live attempt, or change
-- what an ended attempt said.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
    seq              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    content_hash     BLOB    NOT NULL CHECK (length(content_hash) = 32),
    source           TEXT    NOT NULL,
    rank             INTEGER NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN
        ('queued', 'running', 'retrying', 'completed', 'failed', 'cancelled', 'rejected')),
    title            TEXT    NOT NULL,
    language         TEXT,
    priority         REAL    NOT NULL,
    lane             TEXT    NOT NULL,
    run_id           TEXT,
    concurrency_key  TEXT,
    handler          TEXT,                          -- set by a rule; otherwise the source decides at the start
    timeout_ms       INTEGER CHECK (timeout_ms > 0),
    budget           INTEGER NOT NULL CHECK (budget >= 1),  -- attempts that one order (or a person's retry) grants
    max_attempts     INTEGER NOT NULL CHECK (max_attempts >= 1),
    attempts         INTEGER NOT NULL DEFAULT 0,    -- that counted
    last_attempt     INTEGER NOT NULL DEFAULT 0,    -- highest number given out
    due_at           INTEGER,                       -- waiting until then, if set
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    output_dir       TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    error            TEXT,
    CHECK ((finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled', 'rejected'))),
    CHECK (state <> 'retrying' OR due_at IS NOT NULL),
    CHECK (due_at IS NULL OR state IN ('queued', 'retrying')),
    CHECK (state IN ('queued', 'running', 'completed') OR error IS NOT NULL)
) STRICT;

-- What can start now, in the order in which it is chosen within a lane.
CREATE INDEX job_ready ON job (lane, rank, priority DESC, seq) WHERE state = 'queued' AND due_at IS NULL;
CREATE INDEX job_due ON job (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_run ON job (run_id, state) WHERE run_id IS NOT NULL;
CREATE INDEX job_running ON job (seq) WHERE state = 'running';
CREATE INDEX job_failed ON job (seq) WHERE state IN ('failed', 'rejected', 'cancelled', 'retrying');
CREATE UNIQUE INDEX job_output ON job (output_dir) WHERE output_dir IS NOT NULL;

-- The entry as it stood in its file; apart, so that a change of state does not rewrite it.
CREATE TABLE entry (
    job  INTEGER PRIMARY KEY REFERENCES job (seq),
    json TEXT NOT NULL
) STRICT;

CREATE TABLE attempt (
    job          INTEGER NOT NULL REFERENCES job (seq),
    number       INTEGER NOT NULL CHECK (number >= 1),
    epoch        INTEGER NOT NULL,
    slot         INTEGER NOT NULL,
    holder_pid   INTEGER NOT NULL,
    holder_start INTEGER NOT NULL,                  -- clock ticks since boot, field 22 of /proc/PID/stat
    boot_id      TEXT    NOT NULL,
    claimed_at   INTEGER NOT NULL,
    pid          INTEGER,
    started_at   INTEGER,
    finished_at  INTEGER,
    exit_code    INTEGER,
    signal       INTEGER,
    outcome      TEXT CHECK (outcome IN ('succeeded', 'failed', 'gate_failed', 'timed_out', 'cancelled',
        'spawn_failed', 'interrupted', 'lost')),
    error        TEXT,
    gate         TEXT CHECK (gate IN ('pass', 'fail', 'inconclusive', 'blocked')),  -- on what it produced, if it was judged
    PRIMARY KEY (job, number),
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Law: no job ever has two live attempts.
CREATE UNIQUE INDEX attempt_live ON attempt (job) WHERE outcome IS NULL;

-- Every job that became terminal, in that order; the pruner follows it.
CREATE TABLE ended (
    n   INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES job (seq)
) STRICT;

CREATE TABLE state_count (
    state TEXT PRIMARY KEY,
    n     INTEGER NOT NULL CHECK (n >= 0)
) STRICT, WITHOUT ROWID;

-- Entries that were put back into a queue file and must stay there until `watch_until`.
CREATE TABLE rescued (
    source      TEXT    NOT NULL,
    raw_hash    BLOB    NOT NULL,
    json        TEXT    NOT NULL,
    watch_until INTEGER NOT NULL,
    PRIMARY KEY (source, raw_hash)
) STRICT;

INSERT INTO meta VALUES ('epoch', 0);
INSERT INTO state_count VALUES
    ('queued', 0), ('running', 0), ('retrying', 0), ('completed', 0), ('failed', 0), ('cancelled', 0), ('rejected', 0);

CREATE TRIGGER job_counted AFTER INSERT ON job BEGIN
    UPDATE state_count SET n = n + 1 WHERE state = NEW.state;
    INSERT INTO ended (job) SELECT NEW.seq WHERE NEW.finished_at IS NOT NULL;
END;

CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_count SET n = n - 1 WHERE state = OLD.state;
    UPDATE state_count SET n = n + 1 WHERE state = NEW.state;
    INSERT INTO ended (job) SELECT NEW.seq WHERE NEW.finished_at IS NOT NULL;
END;

-- Legal moves. `failed`, `cancelled` -> `queued` is a person's retry; `rejected` -> `queued` a mended entry.
CREATE TRIGGER job_legal BEFORE UPDATE OF state ON job WHEN OLD.state <> NEW.state AND (OLD.state, NEW.state) NOT IN (VALUES
    ('queued', 'running'), ('queued', 'cancelled'), ('queued', 'rejected'),
    ('running', 'queued'), ('running', 'retrying'), ('running', 'completed'), ('running', 'failed'),
    ('running', 'cancelled'),
    ('retrying', 'queued'), ('retrying', 'cancelled'),
    ('failed', 'queued'), ('cancelled', 'queued'), ('rejected', 'queued')
) BEGIN
    SELECT RAISE(ABORT, 'illegal move of a job');
END;

CREATE TRIGGER job_kept BEFORE DELETE ON job BEGIN
    SELECT RAISE(ABORT, 'jobs are never deleted');
END;

CREATE TRIGGER attempt_once BEFORE UPDATE ON attempt WHEN OLD.outcome IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'an ended attempt is never changed');
END;

CREATE TRIGGER attempt_kept BEFORE DELETE ON attempt BEGIN
    SELECT RAISE(ABORT, 'attempts are never deleted');
END;
