"""The budgets enforced on the kernel."""
