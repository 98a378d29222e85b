# Runs as root inside the box's file system, after Debian's packages, files/ and programs are in place.
set -eu

# People. No password, no key: the seed brings the key.
useradd --create-home --shell /bin/bash --groups sudo vagrant
passwd --lock --quiet root
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/vagrant
chmod 0440 /etc/sudoers.d/vagrant

# Every interactive shell, of a login or not, completes words, and knows the alias of every course.
cat >> /etc/bash.bashrc <<'END'

[ ! -r /usr/share/bash-completion/bash_completion ] || . /usr/share/bash-completion/bash_completion
alias k=kubectl
END

# CNI plug-ins where the kubelet's world expects them. Hard links, not symbolic ones:
# a pod that mounts /opt/cni/bin must see the files.
ln -f /usr/lib/cni/* /opt/cni/bin/

systemctl --quiet enable containerd docker-registry ssh systemd-networkd systemd-resolved chrony klab-seed klab-node
# The seed of a node that takes part in the load balancer enables these.
systemctl --quiet disable haproxy keepalived
# mount.nfs and iscsiadm start what they need. rpcbind is for NFS before version 4, and open-iscsi, which logs in to
# targets at boot, lets nobody log in to the node before the network is up.
systemctl --quiet disable rpcbind.service rpcbind.socket nfs-client.target open-iscsi.service
# What a node in a classroom has no use for, and what would run in the middle of a lesson.
systemctl --quiet mask \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer systemd-tmpfiles-clean.timer cloud-init-hotplugd.socket getty@tty1.service \
  systemd-pstore.service systemd-firstboot.service sshd-keygen.service systemd-binfmt.service \
  modprobe@drm.service modprobe@configfs.service modprobe@fuse.service \
  sys-kernel-config.mount sys-fs-fuse-connections.mount
mkdir -p /etc/systemd/system-generators
for generator in ssh gpt-auto tpm2 hibernate-resume rc-local sysv; do
  ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done

# What these units would rebuild at the first boot is already right: the packages did it.
for folder in /etc /var; do
  echo "TIMESTAMP_NSEC=${SOURCE_DATE_EPOCH}000000000" > "$folder/.updated"
done

# What a program may do is for a lesson to say. Debian's profiles, those of a hundred desktop programs among them, would
# be loaded at each boot, before all else. The containers' own one comes with their runtime, which needs the parser.
find /etc/apparmor.d -maxdepth 1 -type f -delete

# No two nodes may have one name; iscsid makes it when it first starts.
echo GenerateName=yes > /etc/iscsi/initiatorname.iscsi
# A node's root is on neither.
(cd /usr/share/initramfs-tools && rm -f hooks/iscsi scripts/local-top/iscsi scripts/local-bottom/iscsi hooks/dmsetup)

# DNS through systemd-resolved, as kubeadm's preflight expects it.
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf

mkdir -p /etc/klab /etc/kubernetes/manifests
chmod 0700 /etc/klab

# Python then trusts its compiled files as they are; cloud-init alone imports some six hundred.
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.*/

update-initramfs -u -k all
