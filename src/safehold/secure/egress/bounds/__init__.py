"""What may leave at most: budgets, the odometer, the proof."""
