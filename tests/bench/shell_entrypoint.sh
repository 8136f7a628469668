#!/bin/sh
# What a shell entrypoint does for the same result, to compare with: make a key, add the parameters to pgpool.conf, and
# start pg_enc once for each user. It checks nothing, and the passwords stand on a command line.
#
# usage: shell_entrypoint.sh DIRECTORY, with PGPOOL_PARAMS_… and NAME_USERNAME, NAME_PASSWORD in the environment
set -eu
umask 077
cd "$1"
rm -f pool_passwd
head -c 20 /dev/urandom | base64 >key
echo "listen_addresses = '*'" >pgpool.conf
printenv | sed -nE "s/^PGPOOL_PARAMS_([^=]*)=(.*)/\L\1\E = '\2'/p" >>pgpool.conf
for prefix in $(printenv | sed -nE 's/^([A-Z0-9]+)_USERNAME=.*/\1/p'); do
    eval "user=\$${prefix}_USERNAME password=\$${prefix}_PASSWORD"
    # shellcheck disable=SC2154  # both were assigned by eval
    pg_enc -m -k key -f "$PWD/pgpool.conf" -u "$user" "$password" >/dev/null 2>&1
done
