"""Files written whole, locks, and a run's folder with the URL that it may mirror. Knows nothing of datasets."""
