"""Operations around `dbt build`."""
