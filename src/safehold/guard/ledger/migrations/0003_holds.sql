-- Decisions that pruning must leave in place, by who asked and until when (seconds since the epoch).
CREATE TABLE ledger_holds (
    decision_id VARCHAR NOT NULL,
    holder VARCHAR NOT NULL,
    held_at DOUBLE PRECISION NOT NULL,
    until DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (decision_id, holder)
);
