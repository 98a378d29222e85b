#!/bin/sh
# Options alone are the server's.
set -eu
case ${1-} in
  -*) set -- memcached "$@" ;;
esac
exec "$@"
