#!/bin/sh
# Of the stock image's command, what an operator types: alluxio fs, alluxio fsadmin, alluxio job.
set -e
home=/opt/alluxio
case "${1:-}" in
fs) class=alluxio.cli.fs.FileSystemShell ;;
fsadmin) class=alluxio.cli.fsadmin.FileSystemAdminShell ;;
job) class=alluxio.cli.job.JobShell ;;
*)
  echo "Usage: alluxio COMMAND [ARGUMENT...], where COMMAND is fs, fsadmin or job" >&2
  exit 1
  ;;
esac
shift
# shellcheck disable=SC2086 # the options are several
exec "$JAVA_HOME/bin/java" -cp "$home/conf:$home/lib/*" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
  -Djava.net.preferIPv4Stack=true -Dalluxio.home=$home -Dalluxio.conf.dir=$home/conf -Dalluxio.logs.dir=$home/logs \
  -Dlog4j.configuration=file:$home/conf/log4j-client.properties ${ALLUXIO_JAVA_OPTS:-} ${ALLUXIO_USER_JAVA_OPTS:-} "$class" "$@"
