-- Which file a writer wrote to: a copy of it made without the write-ahead log is told apart.
ALTER TABLE ledger_writers ADD COLUMN home TEXT;
