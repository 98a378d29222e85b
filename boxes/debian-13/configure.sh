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

# DNS through systemd-resolved, as kubeadm's preflight expects it.
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf

mkdir -p /etc/klab /etc/kubernetes/manifests
chmod 0700 /etc/klab

# Python then trusts its compiled files as they are; cloud-init alone imports some six hundred.
python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.*/

update-initramfs -u -k all
