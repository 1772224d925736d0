#!/bin/sh
# First process of a container (namespaces); becomes systemd. It has its own units, configuration and
# /run, uses the caller's network and programs, and changes none of the caller's files or kernel
# settings.
#
#   systemd_machine.sh FOLDER REPOSITORY SITE PYTHON
#
# FOLDER holds config/ (as /etc/predictu-dispatch), units/ and daemon (the program that the unit starts).
set -eu
folder=$1 repository=$2 site=$3 python=$4

# Read-only, because systemd sets kernel settings at its start.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys

mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
if grep -q name=systemd /proc/self/cgroup; then
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd
else
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system
cp -a /etc /run/etc
mount --bind /run/etc /etc
rm -rf /etc/systemd/system /etc/predictu-dispatch
mkdir /etc/systemd/system
cp -r "$folder"/units/. /etc/systemd/system/
cp -r "$folder/config" /etc/predictu-dispatch
chmod -R go-rwx /etc/predictu-dispatch/dsn /etc/predictu-dispatch/operators/keys

# Whatever else this system has installed is not to be started.
for units in /usr/lib/systemd/system /usr/lib/systemd/system-generators /usr/local/lib/systemd; do
  if [ -d "$units" ]; then mount -t tmpfs tmpfs "$units"; fi
done
for target in sysinit basic shutdown network-online nss-lookup; do
  printf '[Unit]\nDefaultDependencies=no\n' >"/etc/systemd/system/$target.target"
done

mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -m 700 /var/lib/private
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/predictu-dispatch/bin
for part in repository site python; do
  mkdir "/opt/predictu-dispatch/$part"
  eval "mount --rbind \"\$$part\" /opt/predictu-dispatch/$part"
done
install -m 755 "$folder/daemon" /opt/predictu-dispatch/bin/predictu-dispatch

# systemd mounts credentials in another namespace, from which they must propagate to this one.
mount --make-rshared /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test \
  /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=no
