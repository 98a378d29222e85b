#!/bin/sh
# Options, or a configuration file, are the server's; the server does not run as root.
set -eu
case ${1-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown redis:redis .
  exec busybox su -s /bin/sh -- redis "$0" "$@"
fi
exec "$@"
