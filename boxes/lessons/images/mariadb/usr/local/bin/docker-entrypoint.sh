#!/bin/bash
# At the first start: the system tables, the accounts and the database that the variables name, and the scripts of
# /docker-entrypoint-initdb.d. Each variable may be called MARIADB_ or MYSQL_, or come from a file named in NAME_FILE.
set -eu

data=/var/lib/mysql
unfinished=$data/.klab-unfinished
socket=/run/mysqld/mysqld.sock

# The value of a variable, under either of its names.
setting() {
  local name file
  for name in "MARIADB_$1" "MYSQL_$1"; do
    file=${name}_FILE
    if [ -n "${!name-}" ]; then
      printf %s "${!name}"
      return
    elif [ -n "${!file-}" ]; then
      cat "${!file}"
      return
    fi
  done
}

# A text as SQL has it.
quoted() {
  local quote="'" text=${1//\\/\\\\}
  printf "'%s'" "${text//$quote/$quote$quote}"
}

# A name as SQL has it.
named() {
  local quote='`'
  printf '`%s`' "${1//$quote/$quote$quote}"
}

accounts() {
  local root user password database
  root=$(setting ROOT_PASSWORD) user=$(setting USER) password=$(setting PASSWORD) database=$(setting DATABASE)
  # Accounts without a password, for other names of this host and for anybody.
  echo "SELECT CONCAT('DROP USER ', GROUP_CONCAT(QUOTE(User), '@', QUOTE(Host))) INTO @others FROM mysql.global_priv"
  echo "WHERE User = '' OR (User = 'root' AND Host <> 'localhost');"
  echo "EXECUTE IMMEDIATE COALESCE(@others, 'DO 0');"
  echo "ALTER USER root@localhost IDENTIFIED BY $(quoted "$root");"
  echo "CREATE USER root@'%' IDENTIFIED BY $(quoted "$root");"
  echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
  if [ -n "$database" ]; then
    echo "CREATE DATABASE IF NOT EXISTS $(named "$database");"
  fi
  if [ -n "$user" ]; then
    echo "CREATE USER $(quoted "$user")@'%' IDENTIFIED BY $(quoted "$password");"
    if [ -n "$database" ]; then
      echo "GRANT ALL ON $(named "$database").* TO $(quoted "$user")@'%';"
    fi
  fi
  echo "FLUSH PRIVILEGES;"
}

first_start() {
  local root file server
  root=$(setting ROOT_PASSWORD)
  if [ -z "$root" ] && [ -z "$(setting ALLOW_EMPTY_ROOT_PASSWORD)$(setting ALLOW_EMPTY_PASSWORD)" ]; then
    echo "MARIADB_ROOT_PASSWORD is needed, or MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1" >&2
    exit 1
  fi
  rm -rf "$data"/*  # of a first start that was killed
  touch "$unfinished"
  mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db >/dev/null
  "$@" --skip-networking --socket="$socket" &
  server=$!
  until mariadb -uroot --socket="$socket" -e 'SELECT 1' >/dev/null 2>&1; do
    kill -0 "$server"
    sleep 0.2
  done
  accounts | mariadb -uroot --socket="$socket"
  export MYSQL_PWD=$root
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) bash "$file" ;;
      *.sql) mariadb -uroot --socket="$socket" "$(setting DATABASE)" <"$file" ;;
      *.sql.gz) zcat "$file" | mariadb -uroot --socket="$socket" "$(setting DATABASE)" ;;
    esac
  done
  unset MYSQL_PWD
  kill "$server"
  wait "$server"
  rm "$unfinished"
}

case ${1-} in
  -*) set -- mariadbd "$@" ;;
  mysqld) shift && set -- mariadbd "$@" ;;
esac
if [ "$1" = mariadbd ]; then
  if [ "$(id -u)" = 0 ]; then
    mkdir -p "$data" /run/mysqld
    chown -R mysql:mysql "$data" /run/mysqld
    exec busybox su -s /bin/bash -- mysql "$0" "$@"
  fi
  if [ ! -d "$data/mysql" ] || [ -e "$unfinished" ]; then
    first_start "$@"
  fi
fi
exec "$@"
