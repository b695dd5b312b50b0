-- Which turn of the prompt a block was found in: -1 for the user's turns together.
ALTER TABLE ledger_prompts ADD COLUMN turn INTEGER;
