"""One batch from storage to storage, and the plan of batches."""
