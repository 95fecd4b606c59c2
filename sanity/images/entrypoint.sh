#!/bin/sh
# The stock image's entry point, for the arguments with which the controller's pods call it. The site's properties are looked for where
# Alluxio itself does: the conf directory, then /etc/alluxio.
set -e
home=/opt/alluxio
case "${1:-}" in
master-only) class=alluxio.master.AlluxioMaster own=${ALLUXIO_MASTER_JAVA_OPTS:--Xmx8g} ;;
worker-only) class=alluxio.worker.AlluxioWorker own=${ALLUXIO_WORKER_JAVA_OPTS:--Xmx4g -XX:MaxDirectMemorySize=4g} ;;
job-master) class=alluxio.master.AlluxioJobMaster own=${ALLUXIO_JOB_MASTER_JAVA_OPTS:--Xmx1g} ;;
job-worker) class=alluxio.worker.AlluxioJobWorker own=${ALLUXIO_JOB_WORKER_JAVA_OPTS:--Xmx1g} ;;
*)
  echo "Usage: entrypoint.sh master-only|worker-only|job-master|job-worker [--no-format]" >&2
  exit 1
  ;;
esac
case "${2:-}" in
'' | --no-format) ;;
*)
  echo "unknown option $2" >&2
  exit 1
  ;;
esac
# A test's machine has two processors: start quickly.
# shellcheck disable=SC2086 # the options are several
exec "$JAVA_HOME/bin/java" -cp "$home/conf:$home/lib/*" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData \
  -Djava.net.preferIPv4Stack=true -Dalluxio.home=$home -Dalluxio.work.dir=$home -Dalluxio.conf.dir=$home/conf -Dalluxio.logs.dir=$home/logs \
  -Dlog4j.configuration=file:$home/conf/log4j.properties ${ALLUXIO_JAVA_OPTS:-} $own "$class"
