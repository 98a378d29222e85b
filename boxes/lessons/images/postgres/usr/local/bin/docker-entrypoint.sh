#!/bin/bash
# At the first start: a cluster of databases, the account and the database that the variables name, and the scripts of
# /docker-entrypoint-initdb.d. Each variable may come from a file named in NAME_FILE.
set -eu

export PGDATA=${PGDATA:-/var/lib/postgresql/data}
unfinished=$PGDATA/.klab-unfinished

setting() {
  local file=$1_FILE
  if [ -n "${!1-}" ]; then
    printf %s "${!1}"
  elif [ -n "${!file-}" ]; then
    cat "${!file}"
  fi
}

first_start() {
  local user database password method file
  user=$(setting POSTGRES_USER) password=$(setting POSTGRES_PASSWORD) method=${POSTGRES_HOST_AUTH_METHOD-}
  user=${user:-postgres}
  database=$(setting POSTGRES_DB)
  database=${database:-$user}
  if [ -z "$password" ] && [ "$method" != trust ]; then
    echo "POSTGRES_PASSWORD is needed, or POSTGRES_HOST_AUTH_METHOD=trust" >&2
    exit 1
  fi
  if [ -n "$password" ]; then
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") --auth=trust ${POSTGRES_INITDB_ARGS-} >/dev/null
  else
    initdb --username="$user" --auth=trust ${POSTGRES_INITDB_ARGS-} >/dev/null
  fi
  touch "$unfinished"
  echo "host all all all ${method:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --silent --options="-c listen_addresses=''" start
  export PGUSER=$user PGDATABASE=postgres
  if [ "$database" != postgres ]; then
    createdb "$database"
  fi
  export PGDATABASE=$database
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) bash "$file" ;;
      *.sql) psql --no-psqlrc -v ON_ERROR_STOP=1 --file="$file" ;;
      *.sql.gz) zcat "$file" | psql --no-psqlrc -v ON_ERROR_STOP=1 ;;
    esac
  done
  unset PGUSER PGDATABASE
  pg_ctl --wait --silent --mode=fast stop
  rm "$unfinished"
}

case ${1-} in
  -*) set -- postgres "$@" ;;
esac
if [ "$1" = postgres ]; then
  if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown -R postgres:postgres "$PGDATA" /run/postgresql
    chmod 0700 "$PGDATA"
    exec busybox su -s /bin/bash -- postgres "$0" "$@"
  fi
  if [ -e "$unfinished" ]; then
    rm -rf "${PGDATA:?}"/* "$unfinished"  # of a first start that was killed
  fi
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    first_start
  fi
fi
exec "$@"
