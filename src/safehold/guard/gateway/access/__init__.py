"""Who may ask what: admission, exemptions, budgets and their store."""
