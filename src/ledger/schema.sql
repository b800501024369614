-- The ledger, version 1. Times are milliseconds since the Unix epoch, UTC.
-- The state machine is enforced here: no code path can make an illegal move, a second live attempt, or change
-- what an ended attempt said.
-- Words are compared one by one and not by IN: SQLite builds the list after an IN anew, as a table of its own, for every
-- row that is written, which was two fifths of all that a job cost here.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What jobs have in common for choosing. A pause, a missing program or a full lane concerns classes, so that a million
-- waiting jobs of one cost nothing while it is closed.
CREATE TABLE class (
    id            INTEGER PRIMARY KEY,
    lane          TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    rank          INTEGER NOT NULL,
    fixed_handler TEXT    NOT NULL,                 -- set by a rule or the entry itself; '' where the source decides
    handler       TEXT    NOT NULL,                 -- the one in force
    UNIQUE (lane, source, rank, fixed_handler)
) STRICT;

CREATE TABLE job (
    seq              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    content_hash     BLOB    NOT NULL CHECK (length(content_hash) = 32),
    class            INTEGER NOT NULL REFERENCES class (id),
    state            TEXT    NOT NULL CHECK (state = 'queued' OR state = 'running' OR state = 'retrying'
        OR state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'rejected'),
    title            TEXT    NOT NULL,
    language         TEXT,
    priority         REAL    NOT NULL,
    run_id           TEXT,
    concurrency_key  TEXT,
    timeout_ms       INTEGER CHECK (timeout_ms > 0),
    budget           INTEGER NOT NULL CHECK (budget >= 1),  -- attempts that one order (or a person's retry) grants
    max_attempts     INTEGER NOT NULL CHECK (max_attempts >= 1),
    attempts         INTEGER NOT NULL DEFAULT 0,    -- that counted
    last_attempt     INTEGER NOT NULL DEFAULT 0,    -- highest number given out
    again            INTEGER NOT NULL DEFAULT 0,    -- 1: what starts next is a retry
    due_at           INTEGER,                       -- waiting until then, if set
    wait             TEXT CHECK (wait = 'not_before' OR wait = 'retry' OR wait = 'parked' OR wait = 'recurs'),
    unmet            INTEGER NOT NULL DEFAULT 0 CHECK (unmet >= 0),  -- dependencies that are not completed
    recurs           TEXT,                          -- `every` or `cron`: never runs itself, but orders a job when due
    catch_up         TEXT CHECK (catch_up = 'none' OR catch_up = 'one' OR catch_up = 'all'),
    parent           INTEGER REFERENCES job (seq),  -- the recurring job that ordered this one
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    output_dir       TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    error_type       TEXT CHECK (error_type = 'spawn' OR error_type = 'exit' OR error_type = 'signal'
        OR error_type = 'timeout' OR error_type = 'gate' OR error_type = 'data' OR error_type = 'temporary'
        OR error_type = 'lost'),
    error            TEXT,
    dismissed        INTEGER NOT NULL DEFAULT 0,    -- a person took it out of the dead letters
    reworks          INTEGER NOT NULL DEFAULT 0,    -- times it was sent back through the rework source
    cleared          INTEGER NOT NULL DEFAULT 0,    -- the folders of its attempts up to this one are gone
    CHECK ((finished_at IS NOT NULL)
        = (state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'rejected')),
    CHECK (state <> 'retrying' OR due_at IS NOT NULL),
    CHECK (due_at IS NULL OR state = 'queued' OR state = 'retrying'),
    CHECK ((due_at IS NULL) = (wait IS NULL)),
    CHECK ((recurs IS NULL) = (catch_up IS NULL)),
    CHECK (recurs IS NULL OR state = 'queued' OR state = 'cancelled' OR state = 'rejected'),
    CHECK (state = 'queued' OR state = 'running' OR state = 'completed' OR error IS NOT NULL)
) STRICT;

-- What can start now, in the order in which it is chosen within a class: first tries and retries apart. The key is in
-- it so that jobs whose key is full are passed over without a look at their rows.
CREATE INDEX job_ready ON job (class, again, priority DESC, seq, concurrency_key)
    WHERE state = 'queued' AND due_at IS NULL AND unmet = 0;
CREATE INDEX job_due ON job (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX job_run ON job (run_id, state) WHERE run_id IS NOT NULL;
CREATE INDEX job_failed ON job (seq)
    WHERE (state = 'failed' OR state = 'rejected' OR state = 'cancelled' OR state = 'retrying');
CREATE INDEX job_unmet ON job (seq) WHERE unmet > 0;
CREATE INDEX job_recurs ON job (seq) WHERE recurs IS NOT NULL;
CREATE INDEX job_parent ON job (parent) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX job_output ON job (output_dir) WHERE output_dir IS NOT NULL;

-- `depends_on`, by id: the job that is needed may not be known yet.
CREATE TABLE dependency (
    job   INTEGER NOT NULL REFERENCES job (seq),
    needs TEXT    NOT NULL,
    met   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, needs)
) STRICT, WITHOUT ROWID;

CREATE INDEX dependency_needs ON dependency (needs) WHERE met = 0;

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
    outcome      TEXT CHECK (outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'gate_failed'
        OR outcome = 'timed_out' OR outcome = 'cancelled' OR outcome = 'spawn_failed' OR outcome = 'interrupted'
        OR outcome = 'lost'),
    error_type   TEXT,
    error        TEXT,
    gate         TEXT                               -- on what it produced, if it was judged
        CHECK (gate = 'pass' OR gate = 'fail' OR gate = 'inconclusive' OR gate = 'blocked'),
    PRIMARY KEY (job, number),
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
) STRICT, WITHOUT ROWID;

-- Law: no job ever has two live attempts. It is also how running jobs are found: each of them has one.
CREATE UNIQUE INDEX attempt_live ON attempt (job) WHERE outcome IS NULL;

-- Every job that became terminal, in that order; the pruner follows it. It keeps those that are retired, so that a
-- reader that lags behind learns of their end as well.
CREATE TABLE ended (
    n   INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL
) STRICT;

-- What is left of a job that was over and is needed no more: enough to know its entry wherever it turns up, so that it
-- never runs again. `folder` is 1 until the folder with its attempts is removed.
CREATE TABLE retired (
    seq          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    content_hash BLOB    NOT NULL CHECK (length(content_hash) = 32),
    class        INTEGER NOT NULL REFERENCES class (id),
    state        TEXT    NOT NULL CHECK
        (state = 'completed' OR state = 'failed' OR state = 'cancelled' OR state = 'rejected'),
    finished_at  INTEGER NOT NULL,
    folder       INTEGER NOT NULL CHECK (folder = 0 OR folder = 1),
    CHECK (folder = 0 OR state <> 'rejected')
) STRICT;

CREATE INDEX retired_folder ON retired (seq) WHERE folder = 1;

-- The entries with which a retired job had been sent back.
CREATE TABLE retired_rework (
    job          INTEGER NOT NULL REFERENCES retired (seq),
    content_hash BLOB    NOT NULL,
    PRIMARY KEY (job, content_hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE state_count (
    state TEXT PRIMARY KEY,
    n     INTEGER NOT NULL CHECK (n >= 0)
) STRICT, WITHOUT ROWID;

-- The entries with which a job was sent back through the rework source: the first one, and what was wrong with it. All
-- of them are this job, wherever they turn up.
CREATE TABLE rework (
    job          INTEGER NOT NULL REFERENCES job (seq),
    number       INTEGER NOT NULL,
    content_hash BLOB    NOT NULL CHECK (length(content_hash) = 32),
    json         TEXT    NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- What keeps more than one job back. A person's pause, a handler that asked for time, fails or lacks its program, or
-- the machine itself being short of something.
CREATE TABLE hold (
    kind   TEXT    NOT NULL CHECK (kind = 'all' OR kind = 'lane' OR kind = 'source' OR kind = 'handler'),
    name   TEXT    NOT NULL,                        -- '' for `all`
    reason TEXT    NOT NULL CHECK (reason = 'paused' OR reason = 'parked' OR reason = 'failing' OR reason = 'missing'
        OR reason = 'low_memory' OR reason = 'low_disk'),
    since  INTEGER NOT NULL,
    until  INTEGER,
    note   TEXT    NOT NULL,
    PRIMARY KEY (kind, name, reason)
) STRICT, WITHOUT ROWID;

-- Failures in a row of one handler with one signature, told once.
CREATE TABLE incident (
    id        INTEGER PRIMARY KEY,
    handler   TEXT    NOT NULL,
    signature TEXT    NOT NULL,
    error     TEXT    NOT NULL,
    failures  INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER
) STRICT;

CREATE UNIQUE INDEX incident_open ON incident (handler) WHERE closed_at IS NULL;

-- What people ask of the worker, in the order in which they asked; marked when it took effect.
CREATE TABLE control (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    verb       TEXT    NOT NULL,
    argument   TEXT    NOT NULL,                    -- JSON
    asked_at   INTEGER NOT NULL,
    epoch      INTEGER,                             -- meant for this worker alone, if set
    applied_at INTEGER,
    result     TEXT,                                -- JSON
    CHECK ((applied_at IS NULL) = (result IS NULL))
) STRICT;

CREATE INDEX control_open ON control (seq) WHERE applied_at IS NULL;

-- Groups of jobs that end together. The end is written once and is the authority.
CREATE TABLE run (
    id        TEXT PRIMARY KEY,
    opened_at INTEGER NOT NULL,
    ended_at  INTEGER,
    completed INTEGER,
    failed    INTEGER,
    cancelled INTEGER,
    rejected  INTEGER,
    CHECK ((ended_at IS NULL) = (completed IS NULL AND failed IS NULL AND cancelled IS NULL AND rejected IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX run_open ON run (id) WHERE ended_at IS NULL;

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
    INSERT INTO run (id, opened_at) SELECT NEW.run_id, NEW.created_at WHERE NEW.run_id IS NOT NULL
        ON CONFLICT DO NOTHING;
END;

CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_count SET n = n - 1 WHERE state = OLD.state;
    UPDATE state_count SET n = n + 1 WHERE state = NEW.state;
    INSERT INTO ended (job) SELECT NEW.seq WHERE NEW.finished_at IS NOT NULL;
END;

CREATE TRIGGER job_needed AFTER UPDATE OF state ON job
WHEN NEW.state = 'completed' AND EXISTS (SELECT 1 FROM dependency WHERE needs = NEW.id AND met = 0) BEGIN
    UPDATE job SET unmet = unmet - 1 WHERE seq IN (SELECT job FROM dependency WHERE needs = NEW.id AND met = 0);
    UPDATE dependency SET met = 1 WHERE needs = NEW.id AND met = 0;
END;

CREATE TRIGGER run_ended_once BEFORE UPDATE ON run WHEN OLD.ended_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'the end of a run is written once');
END;

CREATE TRIGGER control_once BEFORE UPDATE ON control WHEN OLD.applied_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a control event takes effect once');
END;

-- Legal moves. `failed`, `cancelled` -> `queued` is a person's retry; `rejected` -> `queued` a mended entry.
CREATE TRIGGER job_legal BEFORE UPDATE OF state ON job WHEN OLD.state <> NEW.state AND NOT CASE OLD.state
    WHEN 'queued' THEN NEW.state = 'running' OR NEW.state = 'cancelled' OR NEW.state = 'rejected'
    WHEN 'running' THEN NEW.state = 'queued' OR NEW.state = 'retrying' OR NEW.state = 'completed'
        OR NEW.state = 'failed' OR NEW.state = 'cancelled'
    WHEN 'retrying' THEN NEW.state = 'queued' OR NEW.state = 'cancelled'
    WHEN 'failed' THEN NEW.state = 'queued'
    WHEN 'cancelled' THEN NEW.state = 'queued'
    WHEN 'rejected' THEN NEW.state = 'queued'
    ELSE 0
END BEGIN
    SELECT RAISE(ABORT, 'illegal move of a job');
END;

-- A job goes only when it is over, has left its trace, and is not the newest: its number is never given again.
CREATE TRIGGER job_kept BEFORE DELETE ON job
WHEN OLD.finished_at IS NULL OR OLD.seq = (SELECT max(seq) FROM job)
    OR NOT EXISTS (SELECT 1 FROM retired WHERE seq = OLD.seq) BEGIN
    SELECT RAISE(ABORT, 'a job is deleted only when it is retired');
END;

CREATE TRIGGER job_uncounted AFTER DELETE ON job BEGIN
    UPDATE state_count SET n = n - 1 WHERE state = OLD.state;
END;

CREATE TRIGGER job_not_again BEFORE INSERT ON job WHEN EXISTS (SELECT 1 FROM retired WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'a retired job is known for good');
END;

CREATE TRIGGER retired_over BEFORE INSERT ON retired
WHEN NOT EXISTS (SELECT 1 FROM job WHERE seq = NEW.seq AND id = NEW.id AND finished_at IS NOT NULL)
    OR EXISTS (SELECT 1 FROM attempt WHERE job = NEW.seq AND outcome IS NULL) BEGIN
    SELECT RAISE(ABORT, 'only what is over is retired');
END;

CREATE TRIGGER retired_once BEFORE UPDATE OF seq, id, content_hash, class, state, finished_at ON retired BEGIN
    SELECT RAISE(ABORT, 'what is left of a retired job is never changed');
END;

-- A rejected entry never ran: one that is mended takes the place of what is left of it.
CREATE TRIGGER retired_kept BEFORE DELETE ON retired WHEN OLD.state <> 'rejected' BEGIN
    SELECT RAISE(ABORT, 'a retired job is known for good');
END;

CREATE TRIGGER attempt_once BEFORE UPDATE ON attempt WHEN OLD.outcome IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'an ended attempt is never changed');
END;

-- A claim that was taken back before a process was started for it has not been an attempt.
CREATE TRIGGER attempt_kept BEFORE DELETE ON attempt
WHEN (OLD.outcome IS NOT NULL OR OLD.pid IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM retired WHERE seq = OLD.job) BEGIN
    SELECT RAISE(ABORT, 'an attempt is deleted only when its job is retired');
END;
