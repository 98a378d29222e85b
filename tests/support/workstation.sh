# The first process of a workstation (tests/support/workstation.py), in namespaces of its own: makes the tree of files
# that systemd will see, and becomes systemd. $1: the layers, as overlayfs takes them; $2: the folder.
set -eu
mount --make-rprivate /
root=$2/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$root"
mount -t proc proc "$root/proc"
# The settings of the network are the workstation's own; all others are the machine's, and stay.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,ro,bind "$root/proc/sys"
# A workstation's processor has hardware virtualization, whatever is below this one.
sed 's/^flags.*/& svm/' /proc/cpuinfo > "$2/cpuinfo"
mount --bind "$2/cpuinfo" "$root/proc/cpuinfo"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
# With the machine's /dev its udev would change the machine's device files.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done << 'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
net/tun 10 200
DEVICES
mknod -m 660 "$root/dev/kvm" c 10 232
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
hostname workstation
ip link set lo up
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
# Neither the machine's clock nor its kernel are the workstation's to set.
exec setpriv --bounding-set -sys_time,-sys_module,-syslog \
    env -i container=klab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
