-- Characters of a reply that nobody could read, as the guard counted them.
ALTER TABLE ledger_finals ADD COLUMN unreadable BIGINT;
