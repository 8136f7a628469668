-- The role of pgpool's own checks and of the sidecar. Run on the primary, as a superuser, in a database of your choice:
--     psql -f roles.sql
-- It may be run again. The password is set apart (\password sr_check), so that it is in no file and no log.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'sr_check') THEN
        CREATE ROLE sr_check;
    END IF;
END
$$;
ALTER ROLE sr_check LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;
-- To see who streams from the primary (pg_stat_replication), without which no standby is ever attached again.
GRANT pg_monitor TO sr_check;
