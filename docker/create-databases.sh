#!/bin/sh
# Run by the postgres image on its first start: a database for Airflow and one for the mapping and the audit, each owned
# by its own role, which cannot connect to the other database.
set -eu
for name in airflow dicom_deid; do
  file="/run/servers/$(echo "$name" | tr _ -)-password"
  psql --set=ON_ERROR_STOP=1 --username postgres --set=name="$name" --set=password="$(cat "$file")" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
