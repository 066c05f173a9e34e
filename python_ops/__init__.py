"""Operations around `dbt build`: ingestion, runs, publishing. Command line: `lakeops`."""
