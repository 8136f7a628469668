-- Run once, by PostgreSQL's image, when it makes its data directory.
\set sr_check `cat /etc/pgpool/users/sr_check`
\set n8n `cat /etc/pgpool/users/n8n`
CREATE ROLE sr_check LOGIN PASSWORD :'sr_check';
GRANT pg_monitor TO sr_check;
CREATE ROLE n8n LOGIN PASSWORD :'n8n';
CREATE DATABASE n8n OWNER n8n;
