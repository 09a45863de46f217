# Create the roles of the replica and the poller. The PostgreSQL image sources this file once, before its first real start.
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command "CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'demo'"
psql --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v role=poller -v extended=on -v monitor=on --file "${ROLE_SQL:-/role.sql}"
psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command "ALTER ROLE poller PASSWORD 'demo'"
# The image's `host all` rule does not match replication connections.
echo 'host replication replicator all scram-sha-256' >> "$PGDATA/pg_hba.conf"
