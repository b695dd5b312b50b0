-- One sequence over all kinds of rows, given under the lock of this one record, so that numbers
-- have no holes, follow the order of commits, and no clock has a say. `pruned` counts the rows
-- that retention removed: seq = rows present + pruned, or somebody deleted by hand.
CREATE TABLE ledger_head (
  id BIGINT PRIMARY KEY CHECK (id = 1),
  seq BIGINT NOT NULL,
  pruned BIGINT NOT NULL
);
INSERT INTO ledger_head (id, seq, pruned) VALUES (1, 0, 0);

-- Processes that write. A writer that neither closed nor was seen of late is dead, and the
-- exchanges that it left without a final row crashed.
CREATE TABLE ledger_writers (
  writer TEXT PRIMARY KEY,
  opened_at DOUBLE PRECISION NOT NULL,
  seen_at DOUBLE PRECISION NOT NULL,
  closed_at DOUBLE PRECISION
);

CREATE TABLE ledger_prompts (
  seq BIGINT PRIMARY KEY,
  writer TEXT NOT NULL,
  decision_id TEXT NOT NULL UNIQUE,
  at DOUBLE PRECISION NOT NULL,
  surface TEXT NOT NULL,
  protocol TEXT NOT NULL,
  tenant TEXT,
  key_id TEXT,
  use_case TEXT,
  grant_id TEXT,
  model TEXT NOT NULL,
  stream BOOLEAN NOT NULL,
  bundle_digest TEXT NOT NULL,
  mode TEXT NOT NULL,
  exchange TEXT,
  verdict TEXT NOT NULL,
  action TEXT NOT NULL,
  clause TEXT,
  stage TEXT,
  score DOUBLE PRECISION,
  shadow BOOLEAN NOT NULL,
  would_block BOOLEAN NOT NULL
);
CREATE INDEX ledger_prompts_at ON ledger_prompts (at);

CREATE TABLE ledger_progress (
  seq BIGINT PRIMARY KEY,
  writer TEXT NOT NULL,
  decision_id TEXT NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  lane TEXT NOT NULL,
  char_offset BIGINT NOT NULL,
  text TEXT NOT NULL
);
CREATE INDEX ledger_progress_decision ON ledger_progress (decision_id);
CREATE INDEX ledger_progress_at ON ledger_progress (at);

CREATE TABLE ledger_finals (
  seq BIGINT PRIMARY KEY,
  writer TEXT NOT NULL,
  decision_id TEXT NOT NULL UNIQUE,
  at DOUBLE PRECISION NOT NULL,
  outcome TEXT NOT NULL,
  verdict TEXT NOT NULL,
  clause TEXT,
  stage TEXT,
  score DOUBLE PRECISION,
  lane TEXT,
  char_offset BIGINT,
  delivered TEXT NOT NULL,
  delivered_bytes BIGINT NOT NULL,
  scored_bytes BIGINT NOT NULL,
  tokens_in BIGINT,
  tokens_out BIGINT,
  latency TEXT NOT NULL,
  error TEXT
);
CREATE INDEX ledger_finals_at ON ledger_finals (at);

CREATE TABLE ledger_events (
  seq BIGINT PRIMARY KEY,
  writer TEXT NOT NULL,
  at DOUBLE PRECISION NOT NULL,
  kind TEXT NOT NULL,
  surface TEXT,
  decision_id TEXT,
  detail TEXT NOT NULL
);
CREATE INDEX ledger_events_decision ON ledger_events (decision_id);
