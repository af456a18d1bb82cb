"""A dataset -> a store, checked; and a store -> a dataset."""
