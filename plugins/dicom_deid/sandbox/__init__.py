"""Real servers for a laptop: SeaweedFS (S3), PostgreSQL, Airflow."""
